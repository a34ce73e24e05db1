#!/bin/sh
# Installs sshd and sudo for the tests of `edgepack setup`, which start their own on loopback: Debian's
# package must not start one on the machine meanwhile.
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openssh-server openssh-client sudo >/dev/null
if [ -d /run/systemd/system ]; then
    systemctl disable --quiet ssh.service || true # nor at the next boot
fi
