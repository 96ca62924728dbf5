package api

import "time"

// PluginInfo is all that the daemon knows of one plugin, without asking it.
type PluginInfo struct {
	Plugin
	Restarts    int         `json:"restarts,omitempty" doc:"since the daemon started"`
	SHA256      string      `json:"sha256,omitempty" doc:"pinned in its block"`
	Description string      `json:"description,omitempty"`
	SDK         string      `json:"sdk,omitempty" doc:"version it was built with"`
	Services    []string    `json:"services,omitempty"`
	Privileges  Privileges  `json:"privileges" doc:"that it asks for"`
	Granted     *Granted    `json:"granted,omitempty" doc:"what its process has; none before it first came up"`
	Tools       []Tool      `json:"tools,omitempty" doc:"external programs that it runs"`
	Config      []ConfigKey `json:"config" doc:"what its config block may hold"`
	Calls       []CallCount `json:"calls,omitempty" doc:"since the daemon started, by method"`
	Crashes     []Crash     `json:"crashes,omitempty" doc:"newest reports, newest first"`
}

// CallCount is what the calls of one method came to.
type CallCount struct {
	Method  string `json:"method"`
	Calls   uint64 `json:"calls" doc:"attempts, repeated ones included"`
	Failed  uint64 `json:"failed"`
	Retries uint64 `json:"retries" doc:"attempts that followed a lost or refused one"`
	TookUS  int64  `json:"took_us" doc:"all of them together, in microseconds"`
	MostUS  int64  `json:"most_us" doc:"the longest"`
}

// Crash is a report about a plugin's process that did not end as it should.
type Crash struct {
	ID          string      `json:"id"`
	At          time.Time   `json:"at"`
	Version     string      `json:"version,omitempty"`
	PID         int         `json:"pid,omitempty"`
	RanMS       int64       `json:"ran_ms" doc:"until then"`
	Reason      string      `json:"reason"`
	MemoryBytes int64       `json:"memory_bytes,omitempty" doc:"the most that it ever held"`
	Output      string      `json:"output,omitempty" doc:"the last that it printed"`
	Calls       []CrashCall `json:"calls,omitempty" doc:"its newest, oldest first"`
}

// CrashCall is a call that a process had before it crashed.
type CrashCall struct {
	Method    string    `json:"method"`
	At        time.Time `json:"at"`
	TookUS    int64     `json:"took_us" doc:"until the crash for one that ran"`
	Outcome   string    `json:"outcome" doc:"ok, running, lost, cancelled or the class of an error"`
	Request   string    `json:"request,omitempty" doc:"its name in the log"`
	Operation string    `json:"operation,omitempty"`
}

// Privileges is what a plugin's process needs of the system.
type Privileges struct {
	User            string   `json:"user,omitempty" doc:"none: one that owns nothing; the daemon's own when empty"`
	Capabilities    []string `json:"capabilities,omitempty" doc:"of Linux"`
	Devices         []string `json:"devices,omitempty" doc:"device files that it opens"`
	Network         bool     `json:"network" doc:"false: an empty network namespace would do"`
	StartsWorkloads bool     `json:"starts_workloads" doc:"starts processes that outlive it"`
}

// Granted is what a plugin's process may do to the system.
type Granted struct {
	Confined     bool     `json:"confined" doc:"false: all that the daemon may, and the rest says nothing"`
	Why          string   `json:"why,omitempty" doc:"why it has more than it might"`
	UID          int      `json:"uid"`
	Capabilities []string `json:"capabilities,omitempty" doc:"of Linux; nothing that it runs can get others"`
	Network      bool     `json:"network" doc:"false: an empty network namespace"`
}

// Tool is an external program as a plugin found it.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Path    string `json:"path,omitempty" doc:"not there when empty"`
}

// ConfigKey is one key of a plugin's config block, or one block in it. A key
// inside a block has a name with a dot.
type ConfigKey struct {
	Name        string   `json:"name"`
	Type        string   `json:"type" doc:"as in HCL: string, list(string), block"`
	Required    bool     `json:"required,omitempty"`
	Sensitive   bool     `json:"sensitive,omitempty" doc:"its default and example are not told"`
	Default     string   `json:"default,omitempty" doc:"as JSON"`
	Example     string   `json:"example,omitempty" doc:"as JSON"`
	OneOf       []string `json:"one_of,omitempty"`
	Min         *float64 `json:"min,omitempty"`
	Max         *float64 `json:"max,omitempty"`
	Description string   `json:"description,omitempty"`
	Deprecated  string   `json:"deprecated,omitempty" doc:"what to write instead"`
}
