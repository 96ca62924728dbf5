package plugin

// Level ranks a Finding.
type Level string

// Missing means that something required is not there; Warning that it works
// worse than it could.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning"
	LevelMissing Level = "missing"
)

// Finding is one result of a host check: what was looked at, how it stands, and
// what the operator can do.
type Finding struct {
	ID      string // stable, snake_case: "kvm", "ip_forward"
	Level   Level
	Message string
	Fix     string // a command or a sentence; "" when Level is LevelOK
}
