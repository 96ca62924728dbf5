// Package problem turns classified errors into problem+json (RFC 9457) and
// back, so that errors.Is works on both ends of an HTTP call.
package problem
