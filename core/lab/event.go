package lab

import "time"

// Event tells that something happened. Type is in the past tense:
// "sandbox.started". Fields hold no secret.
type Event struct {
	ID        int64 // ascending, the resume point of a stream
	At        time.Time
	Type      string
	SandboxID string
	JobID     string
	Operation string // operation id
	Message   string // one line for people
	Fields    map[string]string
}

// Event types.
const (
	EventSandboxRequested = "sandbox.requested"
	EventSandboxChanged   = "sandbox.changed"   // Fields: from, to, reason
	EventSandboxAddressed = "sandbox.addressed" // Fields: vmid, address, mac, interface
	EventVMIDBurned       = "vmid.burned"       // Fields: vmid, reason
	EventNetworkApplied   = "network.applied"   // the host's side was changed; the message says how
	EventPolicyRestored   = "policy.restored"   // rules of a running sandbox were not in force; Fields: drift
	EventVMFound          = "vm.found"          // a VM that no live row explains; Fields: vmid, owner, action
	EventJobQueued        = "job.queued"
	EventJobChanged       = "job.changed"       // Fields: from, to, reason
	EventJobStageStarted  = "job.stage_started" // Fields: stage
	EventJobReported      = "job.reported"      // Fields: status, exit_code, uploaded
	EventCancelRequested  = "job.cancel_requested"
	EventArtifactStored   = "artifact.stored"   // Fields: path, size
	EventArtifactFlagged  = "artifact.flagged"  // a secret was found in it; Fields: path, flagged
	EventArtifactsEnded   = "artifacts.removed" // their time was over; Fields: files, bytes
	EventStepStarted      = "step.started"      // Fields: kind, step, attempt
	EventStepFinished     = "step.finished"     // Fields: kind, step, took_ms
	EventStepProgressed   = "step.progressed"   // Fields: kind, step, phase, fraction
	EventStepFailed       = "step.failed"       // Fields: kind, step, class, error, hint
	EventOperationEnded   = "operation.ended"   // Fields: kind, state, error, hint
	EventConfigReloaded   = "config.reloaded"   // Fields: restart, the keys that need one
	EventConfigRejected   = "config.rejected"   // the old configuration stays; Fields: error
	EventVMStarted        = "vm.started"        // Fields: way (boot, memory), reason for a boot
	EventGuestHello       = "guest.hello"       // Fields: boot_id, runner
	EventGuestDenied      = "guest.denied"      // Fields: call, reason

	EventOperationCancel = "operation.cancel_requested" // Fields: kind, step
)

// EventTypes lists all of them.
func EventTypes() []string {
	return []string{
		EventSandboxRequested, EventSandboxChanged, EventSandboxAddressed, EventVMIDBurned, EventNetworkApplied,
		EventPolicyRestored, EventVMFound, EventJobQueued, EventJobChanged, EventJobStageStarted, EventJobReported,
		EventCancelRequested, EventOperationCancel, EventArtifactStored, EventArtifactFlagged, EventArtifactsEnded, EventStepStarted, EventStepFinished,
		EventStepProgressed, EventStepFailed, EventOperationEnded, EventConfigReloaded, EventConfigRejected, EventVMStarted, EventGuestHello, EventGuestDenied,
	}
}
