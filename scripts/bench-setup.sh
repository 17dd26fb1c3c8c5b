#!/usr/bin/env bash
# Installs what `make bench` measures with or against and what is missing: GNU time, and etcd (which is not left running).
set -euo pipefail

missing=()
[ -x /usr/bin/time ] || missing+=(time)
command -v etcd >/dev/null || missing+=(etcd-server)
[ "${#missing[@]}" = 0 ] && exit
if ! command -v apt-get >/dev/null; then
    echo "bench: install ${missing[*]}, then run make bench again" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "bench: there is no sudo; as root, run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "bench: installing ${missing[*]}${as_root[*]:+ through sudo}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install --yes --no-install-recommends -qq -o Dpkg::Use-Pty=0 "${missing[@]}"
