// Package conformance holds the rules of each plugin contract as checks that a
// driver passes or fails: in process, or as a finished plugin binary.
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Hypervisor(conformance.Local[hypervisor.Driver](d), opts))
//	}
//
// Checks make real things and remove them again. They use owner marks and names
// of their own and touch nothing else, so they may run on a host in use.
package conformance
