// Package version says which build of AgentLab this is.
package version
