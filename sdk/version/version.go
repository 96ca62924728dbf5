package version

// version is set by the linker: -X github.com/agentlab/agentlab/sdk/version.version=1.2.3.
var version = "0.1.0-dev"

// String gives the version as semver, "0.1.0-dev" for a build without one.
func String() string { return version }
