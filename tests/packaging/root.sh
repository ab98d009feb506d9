#!/usr/bin/env bash
# A root file system to write into: this machine's own beneath, a tmpfs above, in a mount namespace of its own.
# Prints its process id once "$1" is that root; ends with its standard input.
set -euo pipefail
if [ "${2:-}" != inside ]; then
    exec unshare --mount --fork --kill-child "$0" "$1" inside
fi
mount --make-rprivate /
scratch="$1.layers"
mkdir -p "$1" "$scratch"
mount -t tmpfs -o size=2g tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$1"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
echo $$
exec cat
