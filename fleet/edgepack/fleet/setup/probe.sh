# Looks at a machine and changes nothing. Runs in `sh -s`; prints NAME<tab>VALUE lines.
LC_ALL=C
export LC_ALL
put() { printf '%s\t%s\n' "$1" "$2"; }
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
as_root() { "$@"; }
told() { printf '%s\n' "$sudo_password" | sudo -k -S -p '' "$@"; }
if [ "$(id -u)" = 0 ]; then put root login
elif ! command -v sudo >/dev/null 2>&1; then put root missing
elif sudo -n true 2>/dev/null; then put root sudo; as_root() { sudo -n "$@"; }
elif [ -z "${sudo_password-}" ]; then put root password
elif told true 2>/dev/null; then put root told; as_root() { told "$@"; }
else put root refused
fi
put machine "$(uname -m)"
put system "$(uname -s)"
put host_name "$(uname -n)"
put machine_id "$(head -c 64 /etc/machine-id 2>/dev/null | head -n 1)"
put clock_s "$(date +%s)"
put distribution "$( (. /etc/os-release && printf '%s' "$PRETTY_NAME") 2>/dev/null)"
[ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1 && put systemd yes
free() { # of the folder, or of the next one above that is there
    folder=$1
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    df -Pk "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }'
}
put opt_free_kb "$(free /opt/edgepack)"
put tmp_free_kb "$(free /var/tmp)"
for tool in tar mktemp useradd getent install; do
    PATH=$PATH command -v $tool >/dev/null 2>&1 || put lacks $tool
done
release=$(readlink /opt/edgepack/current 2>/dev/null) && put release "${release##*/}"
[ -L /opt/edgepack/trying ] && put undecided yes
[ -e /etc/edgepack/agent.toml ] && put agent_toml "$(as_root cat /etc/edgepack/agent.toml 2>/dev/null | head -c 262145 | base64 | tr -d '\n')"
[ -e /etc/edgepack/root.json ] && put root_json "$(as_root cat /etc/edgepack/root.json 2>/dev/null | head -c 262145 | base64 | tr -d '\n')"
for python in python3 python3.11 python3.12 python3.13 python3.14; do
    found=$(command -v $python 2>/dev/null) || continue
    "$found" - 2>/dev/null <<'PYTHON' && break
import json, os, platform, struct, sys
from importlib import metadata
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (ValueError, OSError):
    libc = ""
packages = {}
for name in ("numpy", "cryptography", "cffi"):
    try:
        packages[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
try:
    import venv
    has_venv = True
except ImportError:
    has_venv = False
print("python\t" + json.dumps({
    "path": os.path.realpath(sys.executable), "version": list(sys.version_info[:3]), "bits": struct.calcsize("P") * 8,
    "implementation": sys.implementation.name, "libc": libc, "packages": packages, "venv": has_venv,
}))
sys.exit(0 if sys.version_info >= (3, 11) else 1)
PYTHON
done
put end yes
