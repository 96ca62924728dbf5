// Package bundle reads bundle format version 1, the document of secrets that
// every secrets plugin opens, from YAML or JSON text. The schema is strict: an
// unknown key is an error that names its path. No error and no problem text
// ever holds a value of the document.
package bundle
