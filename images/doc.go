// Package images holds the scripts that build guest images, and tests of what
// needs neither root nor packages.
package images
