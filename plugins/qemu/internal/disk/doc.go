// Package disk makes the root disk of a VM: an overlay on its template's.
package disk
