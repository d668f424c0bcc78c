# Everything a developer or a CI machine does here. `make help` lists it.

GO      ?= $(or $(shell command -v go),/usr/local/go/bin/go)
VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)

LDFLAGS := -s -w -X github.com/hostcompute/hcs/internal/cli.version=$(VERSION)

export CGO_ENABLED ?= 0
export PATH := $(patsubst %/,%,$(dir $(GO))):$(PATH)

.DEFAULT_GOAL := build
.PHONY: build demo test check bench clean help

build: ## build hcs, hcs-registry, hcs-shim and hcs-agent into bin/, all static (the default)
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo: build ## make images, run containers from them, and clean up: the README's tour
	@scripts/setup.sh demo
	@scripts/images.sh
	@scripts/demo.sh

test: build ## run all tests; as root those that need it too, and the others also without root
	@scripts/setup.sh test
	@scripts/images.sh
	@scripts/test.sh

check: ## format, vet for three systems, lint, modules, race detector, cross builds, short fuzzing
	@scripts/setup.sh check
	@scripts/check.sh

bench: build ## run the benchmarks, and compare with other programs
	@scripts/setup.sh bench
	@scripts/images.sh
	@scripts/bench.sh

clean: ## remove what was built, and the cached images
	rm -rf --one-file-system bin .cache

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10
