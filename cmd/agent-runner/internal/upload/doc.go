// Package upload finds the files that a job leaves behind, looks for secrets
// in them and brings them to the host.
package upload
