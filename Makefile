# Two commands matter: `make serve` and `make test`. Both work in a fresh clone
# with nothing but rustup installed (and Xcode's command line tools on a Mac).
# Written for GNU make 3.81, the one that macOS has.

SHELL := /bin/sh
CARGO ?= cargo
HOST ?= 127.0.0.1
PORT ?= 30000
# More flags for the server: make serve ARGS="--model-path DIR --max-running-requests 16"
ARGS ?=

# Where `make install` puts the program and the library.
PREFIX ?= /usr/local

.PHONY: help setup build serve test tidy install

help:
	@echo "make serve   fetch MLX and the default model, build, serve on http://$(HOST):$(PORT)"
	@echo "             ARGS=\"--model-path DIR ...\" HOST=... PORT=... MLX_BACKEND=cuda"
	@echo "make test    everything the public CI runs: format, lints, house rules, all tests"
	@echo "make build   the release binary, target/release/sglang-mlx"
	@echo "make install what was built, to $(PREFIX) (PREFIX=... DESTDIR=...)"
	@echo "make setup   fetch the pinned MLX library and the default model into third_party/"

setup:
	@./setup/setup.sh

build: setup
	$(CARGO) build --release --locked -p cli --bin sglang-mlx

# Builds nothing: root needs no compiler.
install:
	@./setup/install.sh "$(PREFIX)"

serve: build
	@echo "serving on http://$(HOST):$(PORT) (stop with Ctrl-C)"
	@exec "$${CARGO_TARGET_DIR:-target}/release/sglang-mlx" serve --host $(HOST) --port $(PORT) $(ARGS)

test: setup
	$(CARGO) run -q -p xtask --locked -- ci

tidy:
	$(CARGO) run -q -p xtask --locked -- tidy
