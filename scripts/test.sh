#!/usr/bin/env bash
# Everything that has to hold before a change goes in, in the order in which mistakes are cheap to find.
#
# Loop devices and mounts need root. As another user they are tested through sudo where it asks for no password, and
# left out, loudly, where it does.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"

target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target"
log="$target/test.log"
: >"$log"
began=$SECONDS
skipped=()
current="set-up"

closing_lines() {
    grep -E '^ *Summary|^test result:' "$log" | sed 's/^/    /' || true
}

ended() {
    local code=$?
    if [ "$code" != 0 ]; then
        echo >&2
        echo "==> FAILED after $((SECONDS - began)) s, in: $current; tests so far:" >&2
        closing_lines >&2
    fi
}
trap ended EXIT

step() {
    local title=$1 at=$SECONDS
    shift
    current=$title
    echo "==> $title"
    "$@"
    echo "    $title: $((SECONDS - at)) s"
}

# Runs the workspace's tests, or those of the targets given, with a line for each on the terminal and a copy in the log.
# It is always the whole workspace that is built: a part of it would be built again, with fewer features.
run_tests() {
    local begin=()
    if command -v cargo-nextest >/dev/null; then
        begin=(cargo nextest run --locked --workspace)
    else
        echo "    (cargo-nextest is not installed: using cargo test)"
        begin=(timeout --foreground 15m cargo test --locked --no-fail-fast --workspace)
    fi
    "${begin[@]}" "$@" 2>&1 | tee -a "$log"
}

# The integration tests that touch the kernel when they may: --test NAME for each.
kernel_tests() {
    local path
    for path in crates/{engines,backup,node,executor,lvault}/tests/*; do
        if [ -f "$path/main.rs" ]; then
            echo "--test=$(basename "$path")"
        elif [ "${path%.rs}" != "$path" ]; then
            echo "--test=$(basename "$path" .rs)"
        fi
    done
}

demo() {
    local engine=$1
    shift
    "$@" timeout --foreground 5m "$target/debug/lvault" demo --engine "$engine"
}

# The demo on a kernel that has device-mapper: this one, or the guest's.
demo_lvm() {
    local layout=$1 begin=(scripts/guest.sh --disk 8G --memory 2048M --limit 300 --)
    if has_device_mapper; then
        begin=("${as_root[@]}")
    fi
    "${begin[@]}" scripts/demo-lvm.sh "$target/debug/lvault" "$layout"
}

if ! command -v kubectl >/dev/null; then
    export LVAULT_WITHOUT_KUBECTL=1
    skipped+=("everything that runs kubectl: it is not installed")
fi

# Every LVM command makes this device file, also where nothing answers behind it.
has_device_mapper() {
    "${as_root[@]}" sh -c ': <>/dev/mapper/control' 2>/dev/null
}

as_root=()
can_mount=yes
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -E)
    else
        can_mount=no
        skipped+=("loop devices and mounts (engine image): neither root, nor sudo without a password")
    fi
fi

step "format" cargo fmt --all --check
step "lints" cargo clippy --locked --workspace --all-targets -- -D warnings
step "build" cargo build --locked --workspace --all-targets
step "generated files" "$target/debug/xtask" crdgen --check
step "repository rules" "$target/debug/xtask" tidy
step "tests" run_tests
if ((${#as_root[@]} > 0)); then
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=${as_root[*]}"
    mapfile -t kernel < <(kernel_tests)
    step "tests as root" run_tests "${kernel[@]}"
fi
step "demo, engine directory" demo directory
if [ "$can_mount" = yes ]; then
    step "demo, engine image" demo image "${as_root[@]}"
fi
if { [ "$can_mount" = yes ] && has_device_mapper; } || command -v linux.uml >/dev/null; then
    step "demo, engine lvm, thin" demo_lvm thin
    step "demo, engine lvm, thick" demo_lvm thick
else
    skipped+=("everything on LVM: neither device-mapper nor user-mode-linux is here")
fi

echo
echo "==> all of it passed in $((SECONDS - began)) s; the tests ended with:"
closing_lines
for what in "${skipped[@]}"; do
    echo "    NOT TESTED: $what" >&2
done
