// Package secret holds values that must not be seen: a Value prints, logs and
// marshals as [REDACTED], and a Redactor removes known values from text on its
// way out.
package secret
