package api

// PluginInfo is all that the daemon knows of one plugin, without asking it.
type PluginInfo struct {
	Plugin
	Restarts    int         `json:"restarts,omitempty" doc:"since the daemon started"`
	SHA256      string      `json:"sha256,omitempty" doc:"pinned in its block"`
	Description string      `json:"description,omitempty"`
	SDK         string      `json:"sdk,omitempty" doc:"version it was built with"`
	Services    []string    `json:"services,omitempty"`
	Privileges  Privileges  `json:"privileges" doc:"that it asks for"`
	Tools       []Tool      `json:"tools,omitempty" doc:"external programs that it runs"`
	Config      []ConfigKey `json:"config" doc:"what its config block may hold"`
}

// Privileges is what a plugin's process needs of the system.
type Privileges struct {
	User            string   `json:"user,omitempty" doc:"the daemon's own when empty"`
	Capabilities    []string `json:"capabilities,omitempty" doc:"of Linux"`
	Network         bool     `json:"network" doc:"false: an empty network namespace would do"`
	StartsWorkloads bool     `json:"starts_workloads" doc:"starts processes that outlive it"`
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
