# Pintle: `make up` starts a cluster, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV := . scripts/env.sh &&
TARGET = $${CARGO_TARGET_DIR:-target}
SIMULATION = $(ENV) cargo test --release --workspace --features pintle-chaos/simulation

# Everything is built with the whole workspace selected: a single package would turn on fewer
# features of its dependencies, and each such choice compiles most of them once more.
.PHONY: help setup build dist demo up down verify fix unit simulation e2e test chaos bench

help: ## List what there is
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s "$$(printf '\t')"

setup: ## Install what a fresh Debian machine lacks; builds RocksDB once
	@scripts/setup

build: setup demo ## Build the release binary
	@$(ENV) cargo build --release --workspace --bin pintle

dist: setup demo ## Build the binary for earnest use: 35 minutes to build, up to a third less processor time
	@scripts/dist

demo: setup ## Build the static binary of the project's own images
	@$(ENV) cargo rustc --release -p pintle-demo --bin pintle-demo -- -C target-feature=+crt-static

up: build ## Start a cluster on this machine: three members, one node
	@$(ENV) $(TARGET)/release/pintle up --detach

down: ## Stop it; the data stays
	@$(ENV) $(TARGET)/release/pintle down

verify: setup ## Check format and lints; changes nothing
	@$(ENV) cargo fmt --all --check
	@$(ENV) cargo clippy --release --workspace --all-targets -- -D warnings

fix: setup ## Format, and apply what clippy can mend
	@$(ENV) cargo fmt --all
	@$(ENV) cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged

unit: build ## Unit, property, golden and integration tests, without the cluster of `e2e`
	@$(ENV) PINTLE=$$(realpath $(TARGET)/release/pintle) cargo test --release --workspace

simulation: setup ## 200 seeds of the store's simulation, and its judges
	@$(SIMULATION) --test judges --test simulation

e2e: build ## The end-to-end test: real kubectl, etcdctl and containerd, and a short run of faults
	@$(ENV) PINTLE=$$(realpath $(TARGET)/release/pintle) cargo test --release --workspace --test walking_cluster

test: verify unit simulation e2e ## Everything that CI runs

chaos: build ## The long runs: 100,000 calls beside a real etcd, 50 rounds of kill -9, 5,000 seeds of the simulation
	@$(ENV) PINTLE_DIFFERENTIAL_CALLS=100000 cargo test --release --workspace --test differential -- --nocapture
	@$(ENV) PINTLE=$$(realpath $(TARGET)/release/pintle) PINTLE_SOAK_ROUNDS=50 cargo test --release --workspace --test soak -- --nocapture
	@$(SIMULATION) --test simulation -- --seeds 5000

bench: dist ## The micro benches, then the store beside etcd (an hour; see docs/performance.md)
	@$(ENV) cargo bench --workspace --bench '*'
	@$(ENV) $(TARGET)/dist/pintle bench store --against etcd --report $(TARGET)/bench-store
