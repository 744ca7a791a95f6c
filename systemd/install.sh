#!/bin/bash
# Installs wharf on this host from the unpacked tarball, for Flatcar, CoreOS and any other system with systemd.
#
#   sudo ./install.sh [--advertise ADDRESS] [--etcd URL,URL,…] [--node NAME] [--no-resolver]
#
# It may be run again: to upgrade, or to say something else. What it does, step by step, is in docs/install.md.
# An existing /etc/wharf.toml is left as it is. `uninstall` as the only argument takes everything away but
# /etc/wharf.toml and the state.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
units=$here/systemd
[ -d "$units" ] || units=$here # run from the source tree
program=${WHARF_PROGRAM:-$here/wharf}
system=/etc/systemd/system

say() { echo "install: $*"; }
fail() { echo "install: $*" >&2; exit 1; }

put() { # MODE FROM TO: by a rename, so that a running program is not written over
  mkdir -p "$(dirname "$3")"
  install -m "$1" "$2" "$3.new"
  mv "$3.new" "$3"
}

quoted() { # TEXT as a TOML string
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

settings() { # a new /etc/wharf.toml, on standard output
  local line url list=''
  local -a urls
  IFS=', ' read -ra urls <<<"$etcd"
  for url in "${urls[@]}"; do list+="${list:+, }$(quoted "$url")"; done
  while IFS= read -r line; do
    case $line in
      '#etcd-endpoints = '*) [ -z "$list" ] || line="etcd-endpoints = [$list]" ;;
      '#node = '*) [ -z "$node" ] || line="node = $(quoted "$node")" ;;
    esac
    printf '%s\n' "$line"
  done <"$units/wharf.toml"
}

program_and_settings() { # what runs goes on running until the new program has found nothing wrong with the settings
  local file=/etc/wharf.toml
  mkdir -p /opt/bin
  install -m 755 "$program" /opt/bin/wharf.new
  if [ -e /etc/wharf.toml ]; then
    [ -z "$etcd$node" ] || say 'left /etc/wharf.toml as it is: write --etcd and --node there'
  else
    file=/etc/wharf.toml.new
    settings >$file
    chmod 644 $file
  fi
  if ! /opt/bin/wharf.new check-config --config $file >/dev/null; then
    rm -f /opt/bin/wharf.new /etc/wharf.toml.new
    fail 'the settings have problems (above); nothing was changed'
  fi
  [ $file = /etc/wharf.toml ] || mv $file /etc/wharf.toml
  mv /opt/bin/wharf.new /opt/bin/wharf
}

keep_resolv_conf() { # what somebody has written there, beside it; the first copy is the one to keep
  local copy=/etc/resolv.conf.before-wharf
  if [ -L /etc/resolv.conf ] || [ ! -s /etc/resolv.conf ] || [ -e $copy ]; then return; fi
  cp -p /etc/resolv.conf $copy
  say "your /etc/resolv.conf is kept as $copy; its name servers are systemd-resolved's to know now (resolvectl status)"
}

resolver() { # the host's own questions for services.internal go to wharf
  if ! systemctl is-active -q systemd-resolved; then
    say 'systemd-resolved does not run here: see "Hosts without systemd-resolved" in docs/install.md'
    return
  fi
  if systemctl is-active -q systemd-networkd; then
    put 644 "$units/network/05-wharf.netdev" /etc/systemd/network/05-wharf.netdev
    put 644 "$units/network/05-wharf.network" /etc/systemd/network/05-wharf.network
    networkctl reload
    /usr/lib/systemd/systemd-networkd-wait-online -i wharf0:degraded --timeout=10 >/dev/null 2>&1 ||
      say 'the interface wharf0 is not up yet: networkctl status wharf0'
  else
    say 'systemd-networkd does not run here: see "Hosts without systemd-networkd" in docs/install.md'
  fi
  if [ "$(readlink -f /etc/resolv.conf)" != /run/systemd/resolve/stub-resolv.conf ]; then
    keep_resolv_conf
    if ! ln -sfn /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; then
      say 'could not point /etc/resolv.conf at systemd-resolved; something else manages it'
    fi
  fi
}

install_all() {
  [ -f "$program" ] || fail "$program is not there"
  program_and_settings
  put 755 "$units/wharf-address" /opt/bin/wharf-address
  put 644 "$units/wharf.service" $system/wharf.service
  put 644 "$units/wharf.socket" $system/wharf.socket
  put 644 "$units/wharf-address.service" $system/wharf-address.service
  put 644 "$units/wharf-lock@.service" $system/wharf-lock@.service
  # Whoever has put this one there has the new one, by which connections outlast its restart.
  [ ! -e $system/wharf-proxy.service ] || put 644 "$units/wharf-proxy.service" $system/wharf-proxy.service
  put 644 "$units/logind.conf" /etc/systemd/logind.conf.d/wharf.conf
  if [ -d "$here/docs" ]; then mkdir -p /opt/share/doc/wharf && cp "$here"/docs/*.md /opt/share/doc/wharf/; fi
  systemctl daemon-reload
  systemctl reload systemd-logind 2>/dev/null || systemctl restart systemd-logind 2>/dev/null || true
  if [ -n "$advertise" ]; then
    mkdir -p $system/wharf-address.service.d
    printf '[Service]\nExecStart=\nExecStart=/opt/bin/wharf-address %s\n' "$advertise" >$system/wharf-address.service.d/10-given.conf
    systemctl daemon-reload
  fi
  [ "$resolve" = no ] || resolver
  systemctl enable -q wharf.socket wharf.service wharf-address.service
  systemctl restart wharf-address.service
  if systemctl is-active -q wharf.service; then
    systemctl restart wharf.service # an upgrade: the sockets stay open meanwhile
  else
    systemctl start wharf.service
  fi
  systemctl try-restart wharf-proxy.service 2>/dev/null || true
  say "$(/opt/bin/wharf --version) runs; try: dig SRV memcached.services.internal"
}

uninstall() {
  systemctl disable -q --now wharf.service wharf.socket wharf-address.service || true
  systemctl stop -q wharf-private.socket 2>/dev/null || true
  rm -rf $system/wharf.service $system/wharf.socket $system/wharf-address.service $system/wharf-private.socket \
    $system/wharf-lock@.service $system/wharf.socket.d/10-address.conf \
    $system/wharf-address.service.d /etc/systemd/logind.conf.d/wharf.conf /etc/wharf.env \
    /etc/systemd/network/05-wharf.netdev /etc/systemd/network/05-wharf.network \
    /opt/bin/wharf /opt/bin/wharf-address /opt/share/doc/wharf
  systemctl daemon-reload
  if systemctl is-active -q systemd-networkd; then
    networkctl reload || true
    networkctl delete wharf0 2>/dev/null || true
  fi
  say 'gone, but for /etc/wharf.toml and /var/lib/wharf'
}

[ "$(id -u)" = 0 ] || fail 'as root, please: sudo ./install.sh'
advertise='' etcd='' node='' resolve=yes
while [ $# -gt 0 ]; do
  case $1 in --advertise | --etcd | --node) [ $# -gt 1 ] || fail "$1 wants a value" ;; esac
  case $1 in
    --advertise) advertise=$2; shift 2 ;;
    --etcd) etcd=$2; shift 2 ;;
    --node) node=$2; shift 2 ;;
    --no-resolver) resolve=no; shift ;;
    uninstall) uninstall; exit ;;
    *) fail "what is $1? usage: install.sh [--advertise ADDRESS] [--etcd URL,…] [--node NAME] [--no-resolver] | uninstall" ;;
  esac
done
if [ -n "$advertise" ] && ! [[ $advertise =~ ^[0-9.]+$ ]]; then fail "--advertise wants an IPv4 address, not $advertise"; fi
install_all
