#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing and, for tests, servers of S3 and of Azure's Blob Storage into the target
# folder.
#
#   scripts/setup.sh build   what building and running takes
#   scripts/setup.sh test    that, and what the tests compare lvault with (restic, kubectl) or need (ACLs, attributes, LVM and a
#                         kernel for it)
#   scripts/setup.sh fuzz    what building takes, and a C++ compiler for libFuzzer
#
# A package is missing when its program is: what was installed in another way is left alone.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

# program:package
wanted="cc:gcc ld:binutils mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs fsfreeze:util-linux losetup:mount"
case "${1:-build}" in
build) ;;
fuzz) wanted="$wanted c++:g++" ;;
test) wanted="$wanted setfacl:acl setfattr:attr restic:restic kubectl:kubernetes-client"
    # A kernel with device-mapper, where this machine's has none: the tests of LVM run on it.
    wanted="$wanted lvm:lvm2 dmsetup:dmsetup thin_check:thin-provisioning-tools mkfs.btrfs:btrfs-progs"
    wanted="$wanted linux.uml:user-mode-linux busybox:busybox-static insmod:kmod python3:python3"
    # The server of Azure's Blob Storage is a program for node.
    wanted="$wanted node:nodejs npm:npm" ;;
*)
    echo "usage: $0 build|test|fuzz" >&2
    exit 2
    ;;
esac

missing=()
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done

# The S3 server runs in a Python environment of its own, which Debian's Python makes only with this package.
if [ "${1:-build}" = test ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3-venv)
fi

if ((${#missing[@]} > 0)); then
    if ! command -v apt-get >/dev/null; then
        echo "setup: these packages are missing, and this is no Debian or Ubuntu: ${missing[*]}" >&2
        echo "setup: install what your system calls them, then run make again" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup: these packages are missing: ${missing[*]}" >&2
            echo "setup: there is no sudo here; as root, run: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "setup: installing ${missing[*]}${as_root[*]:+ through sudo}"
    "${as_root[@]}" apt-get update -qq
    installable=()
    for package in "${missing[@]}"; do
        # Ubuntu has no kubectl among its packages: the tests that need it say what they leave out.
        if [ "$package" = kubernetes-client ] && ! apt-cache show "$package" >/dev/null 2>&1; then
            echo "setup: this system has no package kubernetes-client; tests with kubectl are LEFT OUT until kubectl is" >&2
            echo "setup: installed by hand: https://kubernetes.io/docs/tasks/tools/install-kubectl-linux/" >&2
        elif [ "$package" = user-mode-linux ] && ! apt-cache show "$package" >/dev/null 2>&1; then
            echo "setup: this system has no package user-mode-linux; where its kernel has no device-mapper, the tests of" >&2
            echo "setup: LVM are LEFT OUT" >&2
        else
            installable+=("$package")
        fi
    done
    if ((${#installable[@]} > 0)); then
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends -qq -o Dpkg::Use-Pty=0 "${installable[@]}"
    fi
fi

if ! command -v cargo >/dev/null; then
    echo "setup: there is no cargo: install Rust from https://rustup.rs, then run make again" >&2
    exit 1
fi
if [ "${1:-build}" = test ]; then
    for tool in fmt clippy; do
        if ! command -v "cargo-$tool" >/dev/null; then
            component=$([ "$tool" = fmt ] && echo rustfmt || echo clippy)
            if ! command -v rustup >/dev/null; then
                echo "setup: cargo-$tool is missing: install the Rust component $component, then run make again" >&2
                exit 1
            fi
            echo "setup: adding the Rust component $component"
            rustup component add "$component"
        fi
    done
fi

# moto, the S3 server of the tests, for loopback only. It is put there whole or not at all.
moto='moto[server]==5.2.5'
if [ "${1:-build}" = test ]; then
    folder="${CARGO_TARGET_DIR:-target}/moto"
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$moto" ]; then
        echo "setup: installing $moto into $folder"
        rm -rf "$folder"
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$moto"
        echo "$moto" >"$folder/installed"
    fi
fi

# Azurite, the server of Azure's Blob Storage, for loopback only; a later one wants a newer node than Debian has. It is put there
# whole or not at all.
azurite='azurite@3.35.0'
if [ "${1:-build}" = test ]; then
    folder="${CARGO_TARGET_DIR:-target}/azurite"
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$azurite" ]; then
        echo "setup: installing $azurite into $folder"
        rm -rf "$folder"
        mkdir -p "$folder/cache"
        npm install --prefix "$folder" --cache "$folder/cache" --ignore-scripts --omit=dev --omit=optional \
            --no-audit --no-fund --no-update-notifier --loglevel=error "$azurite"
        rm -rf "$folder/cache"
        echo "$azurite" >"$folder/installed"
    fi
fi
