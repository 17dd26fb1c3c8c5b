#!/bin/sh
# Cargo's rustc for this folder: lvault's own crates are instrumented for libFuzzer, which works with a stable compiler, and get
# cfg(lvault_fuzzing). Dependencies and what runs while building stay as they are: quick to build, and no coverage that is not ours.
rustc=$1
shift
case "$CARGO_PKG_NAME" in
lvault-*)
    exec "$rustc" "$@" --cfg lvault_fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$rustc" "$@" ;;
esac
