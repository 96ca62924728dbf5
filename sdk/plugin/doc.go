// Package plugin is what an author of a plugin needs besides the contract of a
// kind: Serve makes a Go program a plugin, Schema tells what it may be
// configured with.
//
// A whole plugin is a main of one call:
//
//	func main() {
//		plugin.Serve(plugin.Plugin{
//			Name:    "acme",
//			Version: "1.0.0",
//			Kinds:   []plugin.Kind{plugin.Hypervisor},
//			Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
//				{Name: "pool", Type: plugin.String, Required: true, Description: "Where disks are kept."},
//			}}},
//			Configure: func(ctx context.Context, host plugin.HostContext, cfg json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
//				var c struct{ Pool string `json:"pool"` }
//				if err := plugin.Decode(cfg, &c); err != nil {
//					return plugin.Instance{}, err
//				}
//				return plugin.Instance{Service: hypervisor.Service(&driver{pool: c.Pool, log: log})}, nil
//			},
//		})
//	}
//
// # What Serve guarantees
//
// The process ends when its host does, however that ends. A panic in a call is
// an error of that call. Log lines go to standard error as JSON; standard
// output belongs to the handshake, so nothing may be printed there before
// Configure is called. Messages may have up to 64 MiB.
package plugin
