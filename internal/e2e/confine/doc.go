// Package confine looks at the real plugins as processes: which user, which
// capabilities and which network the host gave them.
package confine
