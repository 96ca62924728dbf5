package api

// Finding is one result of looking whether something is as it should be.
type Finding struct {
	Source  string `json:"source" doc:"what was looked at: daemon, hypervisor qemu, profile dev"`
	ID      string `json:"id,omitempty" doc:"a word that stays the same: kvm, plugin_state, invalid"`
	Level   string `json:"level" enum:"ok,warning,error"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty" doc:"what can be done"`
}

// Levels of a Finding.
const (
	LevelOK      = "ok"
	LevelWarning = "warning"
	LevelError   = "error"
)

// Profiles are the usable ones, and why others are not.
type Profiles struct {
	Items    []Profile `json:"items"`
	Problems []string  `json:"problems,omitempty" doc:"file:line: text, for what was skipped or has no effect"`
}

// ProfileCheck tells whether all is there that a profile names.
type ProfileCheck struct {
	Name     string    `json:"name"`
	Findings []Finding `json:"findings" doc:"what is wrong; the id is the class of error that a job would end with"`
}

// JobCheck is a job that shall only be checked.
type JobCheck struct {
	JobCreate
	LocalRepo bool   `json:"local_repo,omitempty" doc:"a repository would be uploaded, instead of repo_url or repo_id"`
	Script    string `json:"script,omitempty" enum:"missing,plain,executable" doc:"with local_repo: how it has .agentlab/run.sh"`
}

// What JobCheck.Script says.
const (
	ScriptMissing    = "missing"
	ScriptPlain      = "plain" // not executable, so it is not run
	ScriptExecutable = "executable"
)

// JobPlan is how a job would be run.
type JobPlan struct {
	Sandbox    *Sandbox `json:"sandbox,omitempty" doc:"that is there and would be used; else a new one is made"`
	Profile    Profile  `json:"profile" doc:"resolved"`
	Agent      string   `json:"agent,omitempty" doc:"what would run: agent.command, .agentlab/run.sh, or an agent CLI of the template; none when only the sandbox will know"`
	Mode       string   `json:"mode,omitempty" doc:"of the agent"`
	TTLSeconds int64    `json:"ttl_seconds"`
}
