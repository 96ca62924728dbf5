// Command agentlab-plugin-secrets-exec is an example of a plugin: it opens
// bundles by running a program of the operator's, such as the client of a vault.
//
// The program is run without a shell, in a process group of its own, under a
// deadline, with the bundle's name in its environment. What it prints on standard
// output is the bundle, as YAML or JSON; status 3 says that there is no such
// bundle. What it prints on standard error is not kept: it may hold secrets.
package main
