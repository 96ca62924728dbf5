// Package finding carries host check results between their Go and wire forms.
package finding
