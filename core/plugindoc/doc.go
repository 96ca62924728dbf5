// Package plugindoc writes what a plugin says of itself and of its configuration
// as Markdown, and as an example of its block.
package plugindoc
