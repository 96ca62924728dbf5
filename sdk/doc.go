// Package sdk is where an author of a plugin for AgentLab begins to read. It has
// no code; what is imported are the packages below it.
//
// A plugin is a program that the daemon starts and calls. One process is one
// plugin block of the configuration and serves one contract:
//
//   - sdk/hypervisor: what runs VMs
//   - sdk/network: what joins them to a network and enforces their policy
//   - sdk/secrets: what keeps bundles of secrets
//   - sdk/exposure: what publishes a sandbox's port
//
// Each has a Driver, the interface to implement, and Service, which makes a
// driver ready to be served. Optional abilities are further interfaces; what a
// driver implements becomes its capabilities.
//
// # What to import
//
//   - sdk/plugin: Serve, which is the whole main of a plugin, and the schema of
//     its configuration.
//   - sdk/fault: the classes of errors. A class tells the daemon what a failure
//     means, whether to try again among others.
//   - sdk/secret: values that do not print.
//   - sdk/secrets/bundle: the format of bundles, for plugins that keep secrets.
//   - sdk/conformance: the checks that the finished binary must pass, as a test.
//
// sdk/launch is the daemon's side; conformance uses it, a plugin does not.
//
// # What stays as it is
//
// A contract is versioned by its proto package: within v1 calls and fields are
// only added, and what is new is a capability, so a plugin that is built against
// an older sdk goes on working. Class names, check IDs and the names of
// capabilities stay. What is below sdk/internal may change at any time.
//
// # What it brings along
//
// gRPC, protobuf, go-plugin, hclog and what these need; no database, no HCL and
// nothing of the daemon. A test holds a vendor's go.mod to that.
//
// # Where to go on
//
// docs/vendor-guide.md leads from agentlab plugin new to a working hypervisor.
// examples has a plugin in Go and one in Python, which does without all of this.
package sdk
