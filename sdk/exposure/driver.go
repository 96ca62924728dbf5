package exposure

import "context"

// Driver is what every exposure plugin can do. Publish and Unpublish are
// idempotent by (owner, host port) and never touch a rule with another owner.
type Driver interface {
	Publish(ctx context.Context, rule Rule) (Rule, error)
	// Unpublish: gone is success.
	Unpublish(ctx context.Context, owner string, hostPort uint16) error
	// List reads back what is really published; "" lists every owner.
	List(ctx context.Context, owner string) ([]Rule, error)
}

// Rule publishes one port of one sandbox.
type Rule struct {
	Owner      string // owner mark of the sandbox; "" in List: not ours
	HostPort   uint16 // 1 to 65535
	TargetAddr string // address of the sandbox, chosen by the core
	TargetPort uint16
	URL        string // set by the driver: where clients reach it
}
