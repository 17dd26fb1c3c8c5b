#!/usr/bin/env bash
# Fuzzes every parser of bytes from outside, FUZZ_SECONDS each (60 if not said), two at a time: FUZZ_TARGETS, or all of them.
#
# It begins with the committed corpus and writes what it finds elsewhere. FUZZ_KEEP=1 adds to the corpus what reaches new code, and
# only that. Ends with 1, and the way to repeat it, when an input breaks what a target asserts.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh fuzz
seconds="${FUZZ_SECONDS:-60}"
keep="${FUZZ_KEEP:-0}"
# A build folder of its own: cargo does not see that the wrapper compiles the same crates in another way.
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz"
work="$target/fuzzing"
corpus="$PWD/fuzz/corpus"
# In a folder of fuzz/, cargo instruments lvault's crates: see fuzz/.cargo/config.toml.
(cd fuzz && CARGO_TARGET_DIR="$target" cargo build --locked)
program="$target/debug/lvault-fuzz"

read -r -a names <<<"${FUZZ_TARGETS:-$("$program" | tr '\n' ' ')}"

# Runs one target; its last line goes to standard output, all of it to a log.
run() {
    local name=$1 found="$work/$1/found" broken="$work/$1/broken" log="$work/$1/log"
    rm -rf "${work:?}/$name"
    mkdir -p "$found" "$broken"
    local failed=0
    LVAULT_FUZZ_TARGET="$name" "$program" "$found" "$corpus/$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=4096 \
        -max_len=8192 -artifact_prefix="$broken/" -print_final_stats=1 >"$log" 2>&1 || failed=1
    local runs coverage features
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    features=$(sed -n 's/.* ft: \([0-9]*\).*/\1/p' "$log" | tail -1)
    printf '    %-12s %10s runs, %6s edges, %6s features, %4s inputs that are new\n' "$name" "${runs:-?}" "${coverage:-?}" \
        "${features:-?}" "$(find "$found" -type f | wc -l)"
    if [ "$failed" = 1 ]; then
        local input
        input=$(find "$broken" -type f | head -1)
        {
            echo "    $name is BROKEN; to repeat it: LVAULT_FUZZ_TARGET=$name $program ${input:-"(no input was written: see $log)"}"
            grep -m 3 -E 'panicked at|^==[0-9]+== ERROR|assert|silently' "$log" | sed 's/^/        /' || true
        } >&2
        return
    fi
    if [ "$keep" = 1 ]; then
        LVAULT_FUZZ_TARGET="$name" "$program" -merge=1 -max_len=8192 "$corpus/$name" "$found" >>"$log" 2>&1
    fi
    touch "$work/$name/passed"
}

echo "==> fuzzing ${#names[@]} targets for $seconds s each"
for name in "${names[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do
        wait -n || true
    done
    run "$name" &
done
wait
broken=()
for name in "${names[@]}"; do
    if [ ! -e "$work/$name/passed" ]; then
        broken+=("$name")
    fi
done
if ((${#broken[@]} > 0)); then
    echo "==> broken: ${broken[*]}" >&2
    exit 1
fi
echo "==> nothing found"
