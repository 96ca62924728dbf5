package hypervisor

// Capability names, reported by the plugin from the optional interfaces its
// driver implements.
const (
	CapSnapshot       = "snapshot"
	CapVolumes        = "volumes"
	CapVolumeSnapshot = "volume_snapshot"
	CapVolumeClone    = "volume_clone"
	CapGuestExec      = "guest_exec"
	CapConsole        = "console"
	CapMemoryTemplate = "memory_template"
)

var capabilities = []struct {
	name string
	has  func(Driver) bool
}{
	{CapSnapshot, can[Snapshotter]},
	{CapVolumes, can[VolumeKeeper]},
	{CapVolumeSnapshot, can[VolumeSnapshotter]},
	{CapVolumeClone, can[VolumeCloner]},
	{CapGuestExec, can[GuestExecutor]},
	{CapConsole, can[ConsoleReader]},
	{CapMemoryTemplate, can[TemplateWarmer]},
}

func can[T any](d Driver) bool {
	_, ok := d.(T)
	return ok
}
