// Package secrets is the contract between AgentLab and what keeps its bundles:
// named, encrypted documents of secrets. Values cross only the plugin's socket
// and are never logged; a driver reads the bundle at call time and keeps no
// plaintext between calls.
package secrets
