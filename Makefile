# AgentLab. `make help` lists the targets.

SHELL       := /bin/bash
BIN         := bin
VERSION     ?= 0.1.0-dev
GO          ?= go
# The same source gives the same bytes on any machine.
GOBUILD     := $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X github.com/agentlab/agentlab/sdk/version.version=$(VERSION)"
PLUGINS     := $(notdir $(patsubst %/main.go,%,$(wildcard plugins/*/main.go)))
export GOTOOLCHAIN := local

.DEFAULT_GOAL := help
.PHONY: help build deps check lint test generate demo demo-stop bench clean image

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-11s %s\n", $$1, $$2}'

deps: ## install what building and running need (Debian packages; asks sudo only when something is missing)
	@scripts/install_deps.sh build

build: deps ## build every binary into bin/; all but the daemon without cgo
	@mkdir -p $(BIN)
	CGO_ENABLED=1 $(GOBUILD) -o $(BIN)/ ./cmd/agentlabd
	CGO_ENABLED=0 $(GOBUILD) -o $(BIN)/ ./cmd/agentlab ./cmd/agent-runner
	@for p in $(PLUGINS); do \
		echo "CGO_ENABLED=0 go build -o $(BIN)/agentlab-plugin-$$p ./plugins/$$p"; \
		CGO_ENABLED=0 $(GOBUILD) -o $(BIN)/agentlab-plugin-$$p ./plugins/$$p || exit 1; done

image: build ## build the guest image (cached by content under /var/cache/agentlab)
	@scripts/image.sh

check: ## the fast part of the tests, within two minutes
	@scripts/test.sh fast

test: ## set up what the tests need and run them all
	@scripts/test.sh all

lint: ## gofumpt, vet, staticcheck
	@scripts/lint.sh

generate: ## regenerate the protobuf code and the generated docs
	@scripts/generate.sh

demo: ## run one job in a VM on this checkout and show what came of it
	@scripts/demo.sh

demo-stop: ## end the demo's daemon with all that is in it (caches stay)
	@scripts/demo_stop.sh

bench: build ## measure what people wait for (about half an hour without KVM; see bench/README.md)
	@scripts/bench.sh

clean: ## remove what was built; the image cache stays
	rm -rf $(BIN) dist .build
