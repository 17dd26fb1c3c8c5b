#!/usr/bin/env bash
# Installs GNU time where it is missing: `make bench` measures processes with it.
set -euo pipefail

[ -x /usr/bin/time ] && exit
if ! command -v apt-get >/dev/null; then
    echo "bench: /usr/bin/time is missing: install GNU time, then run make bench again" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "bench: /usr/bin/time is missing and there is no sudo; as root, run: apt-get install time" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "bench: installing time${as_root[*]:+ through sudo}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq -o Dpkg::Use-Pty=0 time
