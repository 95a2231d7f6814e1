# pxeserver: every chore of the project. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UNIT := not e2e and not browser and not server
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
ENV_SUDO := $(if $(SUDO),$(SUDO) --preserve-env=CI,)

# What the output formats of a build are made with.
OUTPUT_PACKAGES := systemd-boot-efi squashfs-tools erofs-utils xorriso isolinux syslinux syslinux-common mtools dosfstools fdisk qemu-utils fakeroot
# What a private network with a diskless machine takes; then what the tests take besides.
DEMO_PACKAGES := qemu-system-x86 ipxe-qemu ovmf ipxe dnsmasq-base iproute2 ca-certificates
BENCH_PACKAGES := $(DEMO_PACKAGES) gcc libc6-dev nginx-light tftpd-hpa pigz
TEST_PACKAGES := $(DEMO_PACKAGES) $(OUTPUT_PACKAGES) sbsigntool openssl tcpdump busybox docker-registry docker.io chromium chromium-driver fonts-dejavu-core git \
	bind9-dnsutils bind9-host nginx-light \
	qemu-system-arm qemu-efi-aarch64

.PHONY: help deps deps-demo venv lock lint check test test-all fuzz bench demo test-fresh clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

deps: ## Install the distribution packages that the tests need (only those missing)
	@SUDO="$(SUDO)" scripts/packages $(TEST_PACKAGES)

deps-demo:
	@SUDO="$(SUDO)" scripts/packages $(DEMO_PACKAGES)

venv: $(STAMP) ## Make .venv from requirements.lock, with .venv/bin/pxeserver

$(STAMP): requirements.lock pyproject.toml scripts/venv scripts/packages
	@SUDO="$(SUDO)" scripts/venv $(VENV)
	@touch $(STAMP)

lock: ## Resolve the dependencies anew into requirements.lock
	@scripts/lock

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Compiled modules are kept whatever the environment says: the tests start many processes that import them.
check: lint ## Lint, types and unit tests (under two minutes on two cores)
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist worksteal -m "$(UNIT)"

test: deps check ## Everything: check, servers, browser, end-to-end boots (root; under 45 minutes)
	@$(ENV_SUDO) $(BIN)/pytest -m "not ($(UNIT))"

test-all: test fuzz test-fresh ## test, a long fuzz, and both commands in a minimal system

SECONDS ?= 20
fuzz: $(STAMP) ## Fuzz every parser for SECONDS=20 each, then run the property tests with many more examples
	@$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -m hypothesis --timeout 1800

SECTION ?=
bench: $(STAMP) ## Measure against the peers: SECTION=build|tftp|http|dhcp|dns|storm|boots, all of them without one (root)
	@SUDO="$(SUDO)" scripts/packages $(BENCH_PACKAGES)
	@$(SUDO) $(BIN)/python -m bench $(SECTION)

demo: deps-demo $(STAMP) ## Boot a diskless machine in a private network on this host (ONCE=1: end by itself)
	@$(SUDO) $(BIN)/pxeserver --data var/data demo $(if $(filter-out 0,$(ONCE)),--once)

test-fresh: ## Prove `make demo ONCE=1` and `make check` in a minimal debootstrap system (root)
	@SUDO="$(SUDO)" scripts/packages debootstrap git
	@$(SUDO) tests/fresh/run

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis
	$(SUDO) rm -rf var
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
