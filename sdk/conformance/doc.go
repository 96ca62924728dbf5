// Package conformance checks a plugin by its contract: as a finished binary, or
// a driver in process.
//
//	func TestConformance(t *testing.T) {
//		conformance.Test(t, conformance.Plan{
//			Binary: conformance.Binary{Path: binary, Config: cfg},
//			Level:  conformance.LevelSemantics, Destructive: true,
//		})
//	}
//
// Catalogue lists all rules; each has an ID that stays, and the sentence of the
// contract that a failure breaks. Checks make real things only where the plan is
// destructive, and remove them again. They use owner marks and names of their own
// and touch nothing else, so they may run on a host in use.
package conformance
