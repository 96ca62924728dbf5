// Package seed writes and reads what a VM is born with: the three NoCloud
// documents (user-data, meta-data, network-config). Render makes documents
// that cloud-init understands; Parse reads the same subset for agent-runner,
// which applies a seed itself in an image without cloud-init. All documents
// are JSON, which is YAML too.
package seed
