// Package netlab gives tests network namespaces of their own.
package netlab
