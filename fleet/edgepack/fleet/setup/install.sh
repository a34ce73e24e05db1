#!/bin/sh
# Installs the edgepack agent from this folder, without a network. Written by `edgepack`.
#
#   sh install.sh [--id ID] [--python PROGRAM] [--replace-config] [--no-start] [--wait SECONDS]   as root
#
# Run again it changes only what is different: agent.toml, root.json and the state that are there stay
# (--replace-config: agent.toml of this folder counts). Where an agent runs, it tries the new version as
# `edgepack-agent upgrade` does, for --wait seconds, and takes it back when it does not do well.
# Exit codes: 0 done, 2 usage or agent.toml, 8 this machine is no place for it, 9 disk.
set -eu
umask 022
LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin${PATH:+:$PATH}
export LC_ALL PATH

id= python= replace_config= start=yes wait=120
base=/opt/edgepack etc=/etc/edgepack state=/var/lib/edgepack
unit=/etc/systemd/system/edgepack-agent.service
restart= made=

fail() { printf 'install.sh: error: %s\n' "$2" >&2; exit "$1"; }
told() { printf '%s\t%s\n' "$1" "$2"; }

while [ $# -gt 0 ]; do
    case $1 in
    --id) id=${2:?--id needs a value}; shift ;;
    --python) python=${2:?--python needs a value}; shift ;;
    --wait) wait=${2:?--wait needs a value}; shift ;;
    --replace-config) replace_config=yes ;;
    --no-start) start= ;;
    *) fail 2 "unknown option $1" ;;
    esac
    shift
done

[ "$(id -u)" = 0 ] || fail 2 "must run as root"
here=$(cd "$(dirname "$0")" && pwd)
[ -r "$here/release" ] || fail 2 "$here holds no release"
release=$(head -n 1 "$here/release")
case $release in
'' | [!A-Za-z0-9]* | *[!A-Za-z0-9.+_-]*) fail 2 "release must be a name, got '$release'" ;;
esac
case $id in
*[!A-Za-z0-9_-]*) fail 2 "--id must be of A-Z a-z 0-9 _ -, got '$id'" ;;
esac
case $wait in
'' | *[!0-9]*) fail 2 "--wait must be whole seconds, got '$wait'" ;;
esac
[ ! -L "$base/trying" ] || fail 8 "an interrupted upgrade is undecided: systemctl restart edgepack-agent"
if [ -n "$start" ] && [ ! -d /run/systemd/system ]; then
    fail 8 "systemd does not run here; --no-start only installs"
fi

find_python() {
    for name in ${python:-python3 python3.11 python3.12 python3.13 python3.14}; do
        found=$(command -v "$name") || continue
        if "$found" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$found"
            return
        fi
    done
    fail 8 "Python 3.11 or later is needed: apt-get install python3"
}

same() { [ -e "$2" ] && cmp -s "$1" "$2"; }

# put SOURCE TARGET MODE GROUP: in one step, and only if it is different
put() {
    if same "$1" "$2"; then return 1; fi
    install -m "$3" -o root -g "$4" "$1" "$2.new" && mv -f "$2.new" "$2" || fail 9 "$2 cannot be written"
}

link() { # TARGET LINK, in one step
    rm -f "$2.new" && ln -s "$1" "$2.new" && mv -fT "$2.new" "$2" || fail 9 "$2 cannot be written"
}

make_user() {
    getent passwd edgepack >/dev/null && return
    useradd --system --user-group --no-create-home --home-dir "$state" --shell /usr/sbin/nologin edgepack \
        || fail 8 "the user edgepack cannot be made"
}

make_folders() {
    mkdir -p "$base/releases" "$etc" /usr/local/bin "$(dirname "$unit")" || fail 9 "folders cannot be made"
    [ -d "$state" ] || install -d -m 0750 -o edgepack -g edgepack "$state" || fail 9 "$state cannot be made"
}

undo() { # an environment that is not whole must not stay
    code=$?
    [ -z "$made" ] || rm -rf "$made"
    exit "$code"
}

make_release() {
    target=$base/releases/$release
    if [ -e "$target/.complete" ]; then
        told release "unchanged $release"
        return
    fi
    set -- "$here"/pip-*.whl
    [ -e "$1" ] || fail 2 "$here holds no wheels"
    pip=$1/pip
    interpreter=$(find_python) || exit $?
    rm -rf "$target"
    made=$target
    trap undo EXIT
    trap 'exit 130' INT TERM HUP
    system=
    # 32-bit ARM: numpy and cryptography are Debian's
    case $("$interpreter" -c 'import platform, struct; print(platform.machine(), struct.calcsize("P"))') in
    arm*\ 4 | aarch64\ 4) system=--system-site-packages ;;
    esac
    "$interpreter" -m venv --without-pip $system "$target" >/dev/null || fail 8 "no environment can be made"
    env -i PATH="$PATH" HOME=/nonexistent PIP_CONFIG_FILE=/dev/null "$target/bin/python" "$pip" install \
        --no-index --find-links "$here" --no-cache-dir --disable-pip-version-check --no-input --quiet \
        --root-user-action ignore --requirement "$here/requirements.txt" >&2 \
        || fail 8 "the wheels do not fit this machine, or the disk is full"
    "$target/bin/edgepack-agent" --help >/dev/null || fail 8 "the new agent does not run here"
    printf '{"sequence":0,"version":"%s"}' "${release%-*}" >"$target/.complete.new"
    sync
    mv "$target/.complete.new" "$target/.complete"
    made=
    restart=yes
    told release "installed $release"
}

configure() {
    new=$etc/.agent.toml.new
    if [ -e "$etc/agent.toml" ] && [ -z "$replace_config" ]; then
        cp "$etc/agent.toml" "$new"
    elif grep -q '^device *=' "$here/agent.toml"; then
        cp "$here/agent.toml" "$new"
    else # a stick for many machines: each gets its own id
        [ -n "$id" ] || id=$("$target/bin/python" -c \
            'from edgepack.agent.commands.init import own_device_id; print(own_device_id())')
        { printf 'device = "%s"\n' "$id"; cat "$here/agent.toml"; } >"$new"
    fi
    if [ -e "$here/root.json" ]; then
        if [ ! -e "$etc/root.json" ]; then
            put "$here/root.json" "$etc/root.json" 0644 root
        elif ! same "$here/root.json" "$etc/root.json"; then
            told root kept
        fi
    fi
    for file in mqtt-password client.key; do
        [ ! -e "$here/$file" ] || ! put "$here/$file" "$etc/$file" 0640 edgepack || restart=yes
    done
    for file in broker-ca.pem client.pem; do
        [ ! -e "$here/$file" ] || ! put "$here/$file" "$etc/$file" 0644 root || restart=yes
    done
    chmod 0644 "$new"
    if ! said=$("$target/bin/edgepack-agent" status --config "$new" 2>&1 >/dev/null); then
        rm -f "$new"
        fail 2 "agent.toml is not taken: $said"
    fi
    if same "$new" "$etc/agent.toml"; then
        rm -f "$new"
        told config unchanged
    else
        [ ! -e "$etc/agent.toml" ] || cp -p "$etc/agent.toml" "$etc/agent.toml.old"
        mv -f "$new" "$etc/agent.toml"
        restart=yes
        told config changed
    fi
}

make_unit() {
    "$target/bin/python" -m edgepack.agent.systemd.unit >"$base/.unit" || fail 8 "the new agent has no unit"
    if put "$base/.unit" "$unit" 0644 root; then
        restart=yes
        told unit changed
        [ -z "$start" ] || systemctl daemon-reload 9>&-
    fi
    rm -f "$base/.unit"
}

lock() {
    command -v flock >/dev/null 2>&1 || return 0
    flock -n 9 || fail 8 "another installation or upgrade is under way"
}

try_release() { # the agent that runs sees to it, and has the lock meanwhile
    exec 9>&-
    if "$base/current/bin/edgepack-agent" upgrade --release "$release" --wait "$wait" >&2; then
        restart=
    else
        code=$?
        [ "$(readlink "$base/current")" = "releases/$release" ] || rm -rf "$base/releases/$release"
        exit "$code"
    fi
    exec 9>"$base/upgrade.lock"
    lock
}

switch() {
    link "releases/$release" "$base/current"
    [ "$(readlink /usr/local/bin/edgepack-agent || true)" = "$base/current/bin/edgepack-agent" ] \
        || link "$base/current/bin/edgepack-agent" /usr/local/bin/edgepack-agent
}

start_agent() {
    systemctl enable edgepack-agent 9>&- >/dev/null 2>&1 || fail 8 "the service cannot be enabled"
    if [ -z "$restart" ] && systemctl is-active --quiet edgepack-agent 9>&-; then
        told service running
    elif systemctl restart edgepack-agent 9>&- >&2; then
        told service started
    else
        fail 8 "the agent does not start: journalctl -u edgepack-agent"
    fi
}

prune() { # the release that runs and the one before it stay
    for old in "$base"/releases/*; do
        case ${old##*/} in
        "$release" | "${before##*/}") ;;
        *) rm -rf "$old" ;;
        esac
    done
}

make_user
make_folders
exec 9>"$base/upgrade.lock"
lock
before=$(readlink "$base/current" || true)
make_release
if [ -n "$start" ] && [ -n "$before" ] && [ "$before" != "releases/$release" ] \
    && systemctl is-active --quiet edgepack-agent 9>&-; then
    try_release
fi
configure
make_unit
switch
[ -z "$start" ] || start_agent
prune
told done "$release"
