package api

import "time"

// Template is what sandboxes are made from, as the hypervisor plugin sees it.
type Template struct {
	VMID     uint32           `json:"vmid"`
	Name     string           `json:"name"`
	Version  string           `json:"version,omitempty"`
	SSHUser  string           `json:"ssh_user,omitempty"`
	Agents   []string         `json:"agents" doc:"agent CLIs installed in it"`
	Findings []Finding        `json:"findings" doc:"what is wrong with it"`
	Memory   []MemoryTemplate `json:"memory" doc:"sizes of sandboxes that start from memory instead of booting"`
}

// MemoryTemplate is a VM of one size, frozen after its boot.
type MemoryTemplate struct {
	Cores     uint32    `json:"cores"`
	MemoryMB  uint64    `json:"memory_mb"`
	DiskGB    uint64    `json:"disk_gb" doc:"of the root disk, rounded up; 0 is the template's own"`
	Created   time.Time `json:"created"`
	DiskBytes uint64    `json:"disk_bytes" doc:"what it takes on the host"`
}

// TemplateWarm says of what size sandboxes shall start from memory: of a profile's,
// or of one that is given.
type TemplateWarm struct {
	Profile  string `json:"profile,omitempty" doc:"take the size from it; without the others"`
	Cores    uint32 `json:"cores,omitempty" maximum:"255"`
	MemoryMB uint64 `json:"memory_mb,omitempty" maximum:"16777216"`
	DiskGB   uint64 `json:"disk_gb,omitempty" maximum:"65536" doc:"0 keeps the template's"`
}
