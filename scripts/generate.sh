#!/bin/sh
# generate.sh [contracts]: generates Go from proto/ into sdk/internal/proto/ and what
# the example in Python needs. Without "contracts" also docs/openapi.json, and from the
# command table docs/cli.md, docs/man and docs/schema, the tables of
# docs/configuration.md, docs/plugins and the checks in docs/vendor-guide.md.
# Needs protoc with its well-known types (scripts/install_deps.sh generate); the Go
# generators come from tools/go.mod, so their versions are pinned.
set -eu
cd "$(dirname "$0")/.."

command -v protoc >/dev/null || {
	echo "generate: protoc is missing: scripts/install_deps.sh generate" >&2
	exit 1
}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
(cd tools && GOBIN=$bin go install \
	google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc)

find sdk/internal/proto -name '*.pb.go' -delete
module=github.com/agentlab/agentlab
# shellcheck disable=SC2046 # file names of ours hold no blanks
PATH=$bin:$PATH protoc -I proto -I /usr/include \
	--go_out=. --go_opt=module=$module \
	--go-grpc_out=. --go-grpc_opt=module=$module \
	$(find proto -name '*.proto' | sort)

# The example in Python has what it needs of the contracts beside it.
protoc -I proto -I /usr/include --python_out=examples/hypervisor-python/gen \
	proto/agentlab/plugin/v1/*.proto proto/agentlab/hypervisor/v1/*.proto
if [ "${1:-all}" = contracts ]; then exit 0; fi

# The API's description comes from the route table; reference, manual page and
# schemas of the command line from its commands; the keys of the configuration from
# core/config and, where make build has been run, from the plugins' binaries. The
# tests that want them committed write them.
go test ./core/control -run OpenAPI -update
go test ./sdk/conformance -run Guide -update
go test ./cmd/agentlab -run 'TestReference|TestConfigurationReference|TestPluginReference' -update
