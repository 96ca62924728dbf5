package lab

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// NewID returns an opaque id with the given prefix and 80 random bits:
// NewID("sbx") = "sbx_4k2m…".
func NewID(prefix string) string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return prefix + "_" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// IsID reports whether id is one that NewID(prefix) could have made.
func IsID(prefix, id string) bool {
	text, ok := strings.CutPrefix(id, prefix+"_")
	_, err := base32.StdEncoding.DecodeString(strings.ToUpper(text))
	return ok && err == nil && len(text) == 16 && text == strings.ToLower(text)
}

// OwnerMark is what a hypervisor plugin stores with a VM: whose it is.
func OwnerMark(hostUUID, sandboxID string) string {
	return OwnerPrefix(hostUUID) + sandboxID
}

// OwnerPrefix is the part of an OwnerMark that all of one host's have in common.
func OwnerPrefix(hostUUID string) string { return "agentlab:" + hostUUID + "/" }
