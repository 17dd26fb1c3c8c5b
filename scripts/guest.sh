#!/usr/bin/env bash
# Runs a command as root on a kernel of its own that has device-mapper: Debian's user-mode-linux, which is a program.
#
#   scripts/guest.sh [--disk SIZE]... [--disk-file FILE]... [--memory SIZE] [--limit SECONDS] [--pid FILE] -- COMMAND...
#
# The guest sees the host's files as its root, in the same folder, so that programs built here run there; the folders
# /run, /mnt, /tmp and /dev/shm are its own, and empty but for what the command lies in. Its disks are /dev/ubda, /dev/ubdb, ... in the order given: --disk
# makes a new one, --disk-file uses a file that stays. Output goes through, and so does the exit code; 124 says that the
# time was over, 125 that the guest ended without one (it crashed, or somebody killed it: --pid tells whom).
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

die() {
    echo "guest: $*" >&2
    exit 125
}

disks=() memory=1024M limit=600 pidfile=
while (($# > 0)); do
    case $1 in
    --disk) disks+=("new:$2") && shift 2 ;;
    --disk-file) disks+=("$(realpath "$2")") && shift 2 ;;
    --memory) memory=$2 && shift 2 ;;
    --limit) limit=$2 && shift 2 ;;
    --pid) pidfile=$(realpath -m "$2") && shift 2 ;;
    --) shift && break ;;
    *) die "unknown argument $1; see the head of $0" ;;
    esac
done
(($# > 0)) || die "no command"
for program in linux.uml lvm busybox insmod; do
    command -v "$program" >/dev/null || die "$program is missing: scripts/setup.sh test installs it"
done
modules=(/usr/lib/uml/modules/*/kernel/drivers)
[ -d "${modules[0]}" ] || die "there are no modules below /usr/lib/uml: scripts/setup.sh test installs them"

# What the command needs of the folders that are the guest's own is shown in them: each as a folder NAME in one of them.
keep=
for path in "$PWD" "$(realpath -m "$1")" "${CARGO_TARGET_DIR:-}"; do
    if [[ $path =~ ^(/tmp|/run|/mnt|/dev/shm)/[^/[:space:]]+ ]]; then
        keep=${keep:+$keep:}${BASH_REMATCH[0]}
    fi
done

# The guest does not see the host's /tmp and /dev/shm; its memory and its disks should not be on a slow disk.
shared=$(mktemp -d /var/tmp/lvault-guest.XXXXXX)
fast=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /var/tmp)/lvault-guest.XXXXXX")
kernel=
cleanup() {
    # The kernel leads a process group of its own, with everything that runs in it.
    [ -z "$kernel" ] || kill -KILL -- "-$kernel" 2>/dev/null || true
    rm -rf "$shared" "$fast"
}
trap cleanup EXIT
trap 'exit 143' TERM INT HUP

devices=()
for disk in ${disks[@]+"${disks[@]}"}; do
    number=${#devices[@]}
    if [ "${disk#new:}" != "$disk" ]; then
        truncate -s "${disk#new:}" "$fast/disk$number"
        disk=$fast/disk$number
    fi
    devices+=("ubd$number=$disk")
done

export -p | grep -vE ' (TMPDIR|PWD|OLDPWD|SHLVL|_)=' >"$shared/environment"
printf '%q ' "$@" >"$shared/command"
cat >"$shared/init" <<'INIT'
#!/bin/bash
mount -t proc proc /proc
mount -t sysfs sys /sys
. "$SHARED/environment"
export PATH="$PATH:/usr/sbin:/sbin"
host=$SHARED/host
for folder in /run /mnt /tmp /dev/shm; do
    mkdir -p "$folder" "$host$folder"
    mount --bind "$folder" "$host$folder"
    mount -t tmpfs -o mode=1777 tmpfs "$folder"
done
for folder in ${KEEP//:/ }; do
    mkdir -p "$folder"
    mountpoint -q "$folder" || mount --bind "$host$folder" "$folder"
done
mkdir -p /run/lock/lvm /run/lvm-system /dev/pts
mount -t devpts devpts /dev/pts
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
busybox ifconfig lo 127.0.0.1 up
busybox hostname guest
drivers=/usr/lib/uml/modules/$(uname -r)/kernel/drivers
insmod "$drivers/block/loop.ko"
for module in dm-mod dm-bufio persistent-data/dm-persistent-data dm-bio-prison dm-thin-pool dm-snapshot dm-delay \
    dm-flakey dm-zero; do
    insmod "$drivers/md/$module.ko" || echo "guest: no module $module" >&2
done
# There is no udev: LVM makes the device nodes itself, and looks for disks itself.
cat >/run/lvm-system/lvm.conf <<'CONF'
devices { use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" scan=["/dev"] }
backup { backup=0 archive=0 }
global { locking_dir="/run/lock/lvm" use_lvmpolld=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 reserved_memory=0 reserved_stack=0 }
CONF
export LVM_SYSTEM_DIR=/run/lvm-system LVM_SUPPRESS_FD_WARNINGS=1 DM_DISABLE_UDEV=1 LVAULT_GUEST=1
stty -F /dev/tty1 raw -echo
stty -F /dev/tty2 raw -echo
# By pipes: a program on a terminal would draw progress bars.
{
    cd "$FOLDER" && bash "$SHARED/command" </dev/null 2>&3 3>&-
    echo $? >"$SHARED/code"
} 3> >(cat >/dev/tty2) | cat >/dev/tty1
sync
stty -F /dev/tty1 drain 2>/dev/null
busybox poweroff -f
INIT
chmod +x "$shared/init"

# The guest has one CPU: kept on one of the host's, its switches between processes cost half as much.
pinned=()
if command -v taskset >/dev/null; then
    mapfile -t cpus < <(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' |
        awk -F- '{ for (cpu = $1; cpu <= (NF > 1 ? $2 : $1); cpu++) print cpu }')
    pinned=(taskset -c "${cpus[$(($$ % ${#cpus[@]}))]}")
fi

TMPDIR=$fast "${pinned[@]}" setsid linux.uml mem="$memory" ${devices[@]+"${devices[@]}"} \
    root=/dev/root rootfstype=hostfs hostfs=/ rw quiet con=null con0=null,fd:3 con1=null,fd:4 con2=null,fd:5 \
    uml_dir="$shared" init="$shared/init" SHARED="$shared" FOLDER="$PWD" KEEP="$keep" \
    </dev/null 3>"$shared/console" 4>&1 5>&2 >"$shared/kernel" 2>&1 &
kernel=$!
[ -z "$pidfile" ] || echo "$kernel" >"$pidfile"
(
    trap 'kill "$sleeper" 2>/dev/null' TERM
    sleep "$limit" &
    sleeper=$!
    wait "$sleeper" && touch "$shared/late" && kill -KILL -- "-$kernel"
) >/dev/null 2>&1 &
watch=$!
wait "$kernel" 2>/dev/null || true
kill "$watch" 2>/dev/null || true
code=$(cat "$shared/code" 2>/dev/null) || true
if [ -z "$code" ]; then
    code=125
    if [ -e "$shared/late" ]; then
        code=124
        echo "guest: ended after $limit s" >&2
    else
        echo "guest: it ended without an exit code; the last it said:" >&2
    fi
    tail -n 20 "$shared/kernel" "$shared/console" >&2 || true
fi
exit "$code"
