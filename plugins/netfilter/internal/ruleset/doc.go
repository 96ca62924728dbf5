// Package ruleset says which nft rules put a set of policies in force, and
// compares them with what the kernel holds.
//
// Nothing about an attachment is kept outside the kernel: the rules carry what
// identifies it, so what is in force can be read back after any crash.
package ruleset
