#!/usr/bin/env bash
# Runs the demo on a volume group of its own, which it makes and takes down: as root, where there is device-mapper.
#
#   scripts/demo-lvm.sh LVAULT thin|thick
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
lvault=$(realpath "$1")
layout=$2
folder=$(mktemp -d)
disk=/dev/ubda group=lvault-demo-$$

cleanup() {
    vgremove -q -ff -y "$group" >/dev/null 2>&1 || true
    [ -z "${loop:-}" ] || losetup -d "$loop"
    rm -rf "$folder"
}
trap cleanup EXIT
if [ -z "${LVAULT_GUEST:-}" ]; then
    truncate -s 8G "$folder/disk"
    loop=$(losetup --find --show "$folder/disk")
    disk=$loop
fi

vgcreate -q -y "$group" "$disk" >/dev/null
case $layout in
thin)
    lvcreate -q -y --type thin-pool -L 6g -n pool "$group" >/dev/null
    kind='type: thin, thin-pool: {name: pool, overprovision-ratio: 2.0}'
    ;;
thick) kind='type: thick, spare-gb: 0' ;;
*)
    echo "demo-lvm: '$layout' is neither thin nor thick" >&2
    exit 2
    ;;
esac
echo "device-classes: [{name: $layout, volume-group: $group, default: true, $kind}]" >"$folder/lvmd.yaml"
# The guest is slow: it gets less to copy than the other demos.
timeout --foreground 5m "$lvault" demo --engine lvm --lvmd-config "$folder/lvmd.yaml" --state-dir "$folder/state" \
    --data "$(dirname "$0")/../crates/core"
left=$(lvs --noheadings -o lv_name -S 'lv_tags=lvault' "$group")
if [ -n "$left" ]; then
    echo "demo-lvm: the demo has left volumes behind: $left" >&2
    exit 1
fi
