#!/bin/sh
# Whether tests may make a device of this machine's files: namespaces, memory file systems, overlays.
set -eu
folder=$(mktemp -d)
trap 'rmdir "$folder"' EXIT
unshare --mount --pid --uts --fork --kill-child --propagation private sh -c '
    mount -t tmpfs t "$1" && mkdir "$1/upper" "$1/work" "$1/top" &&
    mount -t overlay o -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/top"' sh "$folder" 2>/dev/null
