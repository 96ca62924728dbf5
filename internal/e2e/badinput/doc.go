// Package badinput gives AgentLab what it cannot use, the way people do by
// mistake, and expects a message that names the place and the remedy, the class
// and exit code of the table in docs/architecture.md, and nothing left behind.
//
// Its tables are the list of such cases. Those that only a real guest shows are
// in internal/e2e/vm: a run.sh that fails, hangs, floods its log or prints a
// secret. What a guest says of a repository that it cannot clone is in
// core/gitrepo, of a job without a command in cmd/agent-runner/internal/jobrun,
// of an agent CLI that its template lacks in core/control. Clocks that jump are
// in core/scheduler, profiles and keys with mistakes at every depth in
// core/config.
package badinput
