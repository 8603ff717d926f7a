# `make demo` shows the main job, `make test` proves it. Both install what is missing and say so.
CARGO ?= cargo

.PHONY: demo test check bench build setup

demo: setup
	$(CARGO) run --quiet -p lockstep -- demo

test: setup
	scripts/test

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --quiet -p lockstep --test structure

bench: setup
	$(CARGO) build --release -p lockstep
	scripts/bench

build:
	$(CARGO) build --release -p lockstep

setup:
	scripts/setup
