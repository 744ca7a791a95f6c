#!/bin/bash
# EC2 user data for a Flatcar AMI (or any AMI with systemd and Docker) that was not provisioned by Ignition. The
# private address comes from the instance's metadata: coreos-metadata.service writes COREOS_EC2_IPV4_LOCAL, which
# wharf-address reads; elsewhere it is asked for here, by IMDSv2, and given.
#
# Security group: 53/udp and 53/tcp among the hosts, when they are to ask each other, and the services' own ports.
set -euo pipefail
SOURCE=https://files.example.net/wharf-0.1.0-x86_64-linux.tar.gz
SHA256=0000000000000000000000000000000000000000000000000000000000000000
ETCD=http://10.0.0.11:2379,http://10.0.0.12:2379,http://10.0.0.13:2379

work=$(mktemp -d) # nothing is run from there: /tmp may be mounted noexec
curl -fsSL --retry 5 -o "$work/wharf.tar.gz" "$SOURCE"
echo "$SHA256  $work/wharf.tar.gz" | sha256sum -c -
tar -xzf "$work/wharf.tar.gz" -C "$work" --strip-components=1

given=()
if ! systemctl cat coreos-metadata.service >/dev/null 2>&1; then
  token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
  given=(--advertise "$(curl -fsS -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/local-ipv4)")
fi
bash "$work/install.sh" --etcd "$ETCD" "${given[@]}"
