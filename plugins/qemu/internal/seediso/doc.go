// Package seediso renders the NoCloud seed of a VM as an ISO 9660 image with
// the volume label cidata. It works in memory: a seed holds a token, which must
// not pass through a temporary folder.
package seediso
