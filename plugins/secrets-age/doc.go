// Package main opens bundles that are encrypted with age: the plugin
// agentlab-plugin-secrets-age. Key and bundle files are read at each call, so a
// rotated key or a changed bundle needs no restart, and nothing decrypted is
// kept.
package main
