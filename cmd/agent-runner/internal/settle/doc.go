// Package settle brings a guest that is to become a memory template to rest:
// whatever it would do soon, every copy would do again, in memory of its own.
package settle
