// Package check looks at all that a configuration needs on the host without
// starting anything: the file and the profiles, who may read and change them,
// keys, directories, and the plugins' binaries. It reports everything at once.
package check
