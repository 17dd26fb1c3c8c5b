# Everything a stranger needs: `make demo` shows lvault at work, `make test` proves a change.

.PHONY: help setup build demo test soak kills bench prove prove-long fuzz deny image clean

# What runs the demo, for the engine that needs root: make demo ENGINE=image SUDO=sudo
SUDO ?=
ENGINE ?= auto
DEMO_FLAGS ?=

help:
	@echo "make demo    build lvault and show it at work (ENGINE=auto|image|directory|lvm, SUDO=sudo for image, DEMO_FLAGS=--keep)"
	@echo "make build   build target/release/lvault"
	@echo "make image   build lvault.tar, an OCI image for the nodes of a cluster, without Docker"
	@echo "make test    format, lints, every test, generated files, the demo with every engine"
	@echo "make soak    random users and random misfortunes on whole lvaults (SOAK_SECONDS=600 on each engine and on a bucket), then the judgement"
	@echo "make prove   the proof: model, crash points, stale views, 10,000 random histories, schema, mutations, fuzzing (see docs/PROOF.md)"
	@echo "make prove-long  the same with 100,000 histories (HISTORIES=n for another number, in both)"
	@echo "make fuzz    coverage-guided fuzzing of every parser of bytes from outside (FUZZ_SECONDS=60 each, FUZZ_TARGETS='patch lvmd' for some)"
	@echo "make kills   SIGKILL: the API server under write load, 1,000 times; backup, restore, prune and repair 100 times each; a machine with LVM 100 times"
	@echo "make bench   measure against restic and etcd, snapshot latency, cost at rest and in a large cluster, LVM (BENCH=latency for a part, BENCH_MB=256 for less)"
	@echo "make deny    licences, advisories and sources of all dependencies (installs cargo-deny when it is missing)"
	@echo "make setup   install the Debian or Ubuntu packages that are missing"
	@echo "make clean   remove everything that was built"

setup:
	@scripts/setup.sh test

build:
	@scripts/setup.sh build
	cargo build --locked --release --package lvault

# For nodes of a cluster, without Docker: see docs/kubernetes.md.
IMAGE ?= lvault.tar
image: setup build
	cargo run --locked --release --quiet --package xtask -- image $${CARGO_TARGET_DIR:-target}/release/lvault $(IMAGE)

demo: build
	$(SUDO) $${CARGO_TARGET_DIR:-target}/release/lvault demo --engine $(ENGINE) $(DEMO_FLAGS)

test: setup
	@scripts/test.sh

# Prints its seed; LVAULT_SEED repeats its choices. Executors and lvault are killed and stopped, the storage fills up.
SOAK_SECONDS ?= 600
soak: setup
	LVAULT_SOAK_SECONDS=$(SOAK_SECONDS) cargo nextest run --locked --workspace --profile soak --no-capture \
		-E 'package(lvault) & binary(scenarios) & test(soak::)'

kills:
	cargo nextest run --locked --package lvault-apiserver --run-ignored only --no-capture -E 'test(a_thousand_killed_writers)'
	LVAULT_KILLS=100 cargo nextest run --locked --workspace --profile soak --no-capture -E 'package(lvault-backup) & test(/a_killed_(backup|restore|prune|repair)/)'
	LVAULT_KILLS=25 cargo nextest run --locked --workspace --profile soak --no-capture -E 'test(machine_killed)'

# Root measures the image engine, others the directory engine. BENCH_* in the environment: see cargo xtask bench --help.
BENCH ?=
bench:
	@scripts/setup.sh test
	@scripts/bench-setup.sh
	cargo build --locked --release --package lvault
	cargo build --locked --release --package lvault-backup --example repository
	cargo build --locked --release --package lvault-apiserver --example figures
	cargo build --locked --release --package lvault-engines --example lvm
	cargo run --locked --release --quiet --package xtask -- bench $(BENCH)

# What is proven, and what is not, stands in docs/PROOF.md.
prove prove-long: setup
	cargo run --locked --profile prove --package lvault-sim -- all $(or $(HISTORIES),$(if $(filter prove-long,$@),100000,10000))
	scripts/fuzz.sh

# Needs a C++ compiler, for libFuzzer. FUZZ_KEEP=1 adds what reaches new code to fuzz/corpus.
fuzz:
	scripts/fuzz.sh

deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check

clean:
	cargo clean
