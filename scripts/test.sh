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
began=$SECONDS
skipped=()

step() {
    local title=$1 at=$SECONDS
    shift
    echo "==> $title"
    "$@"
    echo "    $title: $((SECONDS - at)) s"
}

# Runs the tests of the packages given, with a line for each test on the terminal and a copy in the log.
run_tests() {
    local begin=()
    if command -v cargo-nextest >/dev/null; then
        begin=(cargo nextest run --locked)
    else
        echo "    (cargo-nextest is not installed: using cargo test)"
        begin=(timeout --foreground 15m cargo test --locked --no-fail-fast)
    fi
    "${begin[@]}" "$@" 2>&1 | tee -a "$log"
}

demo() {
    local engine=$1
    shift
    "$@" timeout --foreground 5m "$target/debug/lvault" demo --engine "$engine"
}

if ! command -v kubectl >/dev/null; then
    export LVAULT_WITHOUT_KUBECTL=1
    skipped+=("everything that runs kubectl: it is not installed")
fi

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

: >"$log"
step "format" cargo fmt --all --check
step "lints" cargo clippy --locked --workspace --all-targets -- -D warnings
step "build" cargo build --locked --workspace --all-targets
step "generated files" cargo xtask crdgen --check
step "repository rules" cargo xtask tidy
step "tests" run_tests --workspace
if ((${#as_root[@]} > 0)); then
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=${as_root[*]}"
    step "tests as root" run_tests --package lvault-engines --package lvault-backup --package lvault
fi
step "demo, engine directory" demo directory
if [ "$can_mount" = yes ]; then
    step "demo, engine image" demo image "${as_root[@]}"
fi

echo
echo "==> all of it passed in $((SECONDS - began)) s; the tests ended with:"
grep -E '^ *Summary|^test result:' "$log" | sed 's/^/    /'
for what in "${skipped[@]}"; do
    echo "    NOT TESTED: $what" >&2
done
