// Package cardtest gives tests a guest's network card that is real: a link in a
// network namespace of its own.
package cardtest
