// Package template reads image folders: which VMs can be cloned from, and
// whether what lies in them can be trusted to be one.
package template
