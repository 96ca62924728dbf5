package api

import "net/http"

// ProblemType is the media type of every error body.
const ProblemType = "application/problem+json"

// Words of the HTTP exchange that are not in a body.
const (
	// StreamProtocol is the Upgrade token of a sandbox's byte stream.
	StreamProtocol = "agentlab-stream"
	// LogOffsetHeader tells at which byte of the log an answer begins.
	LogOffsetHeader = "Agentlab-Log-Offset"
	// ArchiveName is the file name of a job's artifacts in one archive.
	ArchiveName = "agentlab-artifacts.tar.gz"
)

// Limits of requests, in bytes.
const (
	MaxBody = 1 << 20 // JSON
	MaxRepo = 1 << 30 // uploaded repository
)

// statusOf is the one table from fault classes to HTTP. The class itself
// travels in Problem.Class, so several may share a status.
var statusOf = map[string]int{
	"invalid":      http.StatusBadRequest,
	"not_found":    http.StatusNotFound,
	"exists":       http.StatusConflict,
	"conflict":     http.StatusConflict,
	"locked":       http.StatusLocked,
	"denied":       http.StatusForbidden,
	"exhausted":    http.StatusInsufficientStorage,
	"precondition": http.StatusPreconditionFailed,
	"unavailable":  http.StatusServiceUnavailable,
	"timeout":      http.StatusGatewayTimeout,
	"unsupported":  http.StatusNotImplemented,
	"internal":     http.StatusInternalServerError,
}

// StatusOf gives the HTTP status of a fault class, 500 for an unknown one.
func StatusOf(class string) int {
	if s, ok := statusOf[class]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// ClassOf guesses the fault class of an answer that carries no Problem, as from
// a proxy in between.
func ClassOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "denied"
	case http.StatusConflict:
		return "conflict"
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return "exhausted"
	case http.StatusBadGateway:
		return "unavailable"
	}
	for class, s := range statusOf {
		if s == status {
			return class
		}
	}
	if status >= 400 && status < 500 {
		return "invalid"
	}
	return "internal"
}
