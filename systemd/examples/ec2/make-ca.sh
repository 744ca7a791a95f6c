#!/bin/bash
# Makes the keys of a cluster on this machine: an authority, a certificate for the etcd members, and one for the agents.
#
#   make-ca.sh DIR ADDRESS...            the mains' private addresses, three or five
#   make-ca.sh DIR --put CLUSTER         puts what hosts need into SSM, as SecureStrings below /CLUSTER/ (aws, region set)
#
# DIR/ca.key stays here: no host and no parameter has it. Keep it where you keep such things; whoever has it can be a
# member. Run again it makes new certificates from the same authority (the hosts take them at their next boot).
set -euo pipefail
days=${DAYS:-825}       # of a certificate; the authority's are ten years
umask 077

fail() { echo "make-ca: $*" >&2; exit 1; }

authority() {
  [ ! -e "$dir/ca.key" ] || return 0
  openssl ecparam -name prime256v1 -genkey -noout -out "$dir/ca.key"
  openssl req -x509 -new -sha256 -key "$dir/ca.key" -days 3650 -subj "/CN=etcd of the cluster" \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' -out "$dir/ca.crt"
}

certificate() { # NAME USES [ALTERNATIVE-NAMES]
  local name=$1
  openssl ecparam -name prime256v1 -genkey -noout -out "$dir/$name.key.new"
  {
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$2"
    [ -z "${3:-}" ] || printf 'subjectAltName=%s\n' "$3"
  } >"$dir/$name.ext"
  openssl req -new -sha256 -key "$dir/$name.key.new" -subj "/CN=$name" |
    openssl x509 -req -sha256 -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
      -extfile "$dir/$name.ext" -out "$dir/$name.crt.new" 2>/dev/null
  rm "$dir/$name.ext"
  mv "$dir/$name.key.new" "$dir/$name.key"
  mv "$dir/$name.crt.new" "$dir/$name.crt"
}

put() { # PARAMETER FILE
  # The value is read from the file by aws itself: the arguments of a process are no place for a key.
  aws ssm put-parameter --type SecureString --overwrite --name "/$cluster/$1" --value "file://$dir/$2" >/dev/null
  echo "/$cluster/$1"
}

[ $# -ge 2 ] || fail 'usage: make-ca.sh DIR ADDRESS... | make-ca.sh DIR --put CLUSTER'
command -v openssl >/dev/null || fail 'openssl is not there'
dir=$1
shift
if [ "$1" = --put ]; then
  cluster=${2:-}
  [[ $cluster =~ ^[A-Za-z][A-Za-z0-9-]*$ ]] || fail '--put wants the name of the stack'
  [ -e "$dir/member.key" ] || fail "there are no keys in $dir yet: make-ca.sh $dir ADDRESS..."
  put ca.crt ca.crt
  put main/member.crt member.crt
  put main/member.key member.key
  put agent.crt agent.crt
  put agent.key agent.key
  exit
fi
names=IP:127.0.0.1,DNS:localhost
for address in "$@"; do
  [[ $address =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] || fail "$address is no IPv4 address"
  names+=,IP:$address
done
case $# in 3 | 5) ;; *) fail "an etcd of $# members: it is to be three or five" ;; esac
mkdir -p "$dir"
authority
certificate member serverAuth,clientAuth "$names"
certificate agent clientAuth
openssl verify -CAfile "$dir/ca.crt" "$dir/member.crt" "$dir/agent.crt"
