#!/usr/bin/env bash
# Installs what `make bench` measures with or against and what is missing: GNU time, and etcd (which is not left running). A newer
# restic than Debian 12 has is fetched into the build folder, where that can be had; nothing on the system changes for it.
set -euo pipefail

restic=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/bench/restic
if [ ! -x "$restic" ] && [ "$(uname -m)" = x86_64 ] && command -v curl >/dev/null && command -v dpkg-deb >/dev/null; then
    url=http://deb.debian.org/debian/pool/main/r/restic/restic_0.18.0-1%2bb4_amd64.deb
    sum=4888fb20b272a28b84ac39171b7d7f0d9a58c2aeae51ec28e54684648d66e12c
    package=$(mktemp -d)
    trap 'rm -rf "$package"' EXIT
    if curl --silent --fail --location --max-time 120 --output "$package/deb" "$url" &&
        echo "$sum  $package/deb" | sha256sum --check --quiet && dpkg-deb --extract "$package/deb" "$package/files"; then
        mkdir -p "$(dirname "$restic")"
        mv "$package/files/usr/bin/restic" "$restic"
    else
        echo "bench: restic 0.18 cannot be had from $url; the installed one is measured" >&2
    fi
fi

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
