package control

import (
	"net/http"
	"reflect"

	"github.com/agentlab/agentlab/core/api"
)

// Limits of listings.
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxTailLines = 100_000
)

// table is every route there is.
func (s *Server) table() []route {
	limit := intParam("limit", "most rows; 100 when not given", 1, maxLimit)
	return []route{
		read("/healthz", "health", PermPublic, "Whether the daemon answers.", s.health),
		read("/v1/openapi.json", "openapi", PermRead, "This document.", s.openapi),
		read("/v1/status", "status", PermRead, "The daemon at a glance; asks no plugin.", s.status),
		read("/v1/host", "host", PermRead, "What the daemon's host is.", s.host),
		read("/v1/host/findings", "host-findings", PermRead, "What the plugins find on the host; asks them.", s.hostFindings),
		read("/v1/plugins", "plugin-list", PermRead, "Configured plugins and how they are.", s.plugins).with(
			flagParam("check", "ask them for it, for two seconds at most")),
		read("/v1/plugins/{name}", "plugin-get", PermRead, "One plugin by its kind or name; asks no plugin.", s.plugin),
		{
			method: http.MethodPost, path: "/v1/plugins/{name}/restart", id: "plugin-restart", permission: PermOperate,
			summary: "Replace a plugin's process by a new one, and answer when that serves; when it does not come up the old one stays.",
			status:  http.StatusOK, out: reflect.TypeFor[api.PluginInfo](), serve: s.restartPlugin,
		},
		read("/v1/profiles", "profile-list", PermRead, "Usable profiles, by name, and what is wrong with others.", s.profiles),
		read("/v1/profiles/{name}/check", "profile-check", PermRead,
			"Whether all that a profile names is there; asks plugins.", s.profileCheck),
		read("/v1/templates", "template-list", PermRead, "What sandboxes are made from; asks a plugin.", s.templateList),
		ask("/v1/templates/{name}/warm", "template-warm",
			"Have sandboxes of a size start from memory; answers when they do, and is given up when the caller goes.", s.warmTemplate, s),

		create("/v1/sandboxes", "sandbox-create", "Make a sandbox without a job.", s.createSandbox, s),
		read("/v1/sandboxes", "sandbox-list", PermRead, "Sandboxes that live.", s.sandboxes).with(
			flagParam("all", "destroyed ones too"), textsParam("state", "only in this state")),
		read("/v1/sandboxes/{ref}", "sandbox-get", PermRead, "One sandbox by VMID, name or id.", s.sandbox),
		work(http.MethodDelete, "/v1/sandboxes/{ref}", "sandbox-destroy",
			"Destroy a sandbox; asked again, answers the operation under way.", s.destroySandbox, s),
		read("/v1/sandboxes/{ref}/events", "sandbox-events", PermRead, "The newest events of a sandbox, oldest first.", s.sandboxEvents).with(
			intParam("tail", "most events; 100 when not given", 1, maxLimit)),
		stream("/v1/sandboxes/{ref}/console", "sandbox-console", PermRead,
			"The newest of what the guest printed on its console, at most 64 KiB; asks a plugin.", "text/plain", s.sandboxConsole),
		stream("/v1/sandboxes/{ref}/stream", "sandbox-stream", PermOperate,
			"A byte stream to a TCP port of the sandbox, after Upgrade: "+api.StreamProtocol+" (101).",
			"application/octet-stream", s.sandboxStream).with(intParam("port", "22, the only one so far", 1, 65535)),

		create("/v1/jobs", "job-create", "Run a job in a new sandbox.", s.createJob, s),
		ask("/v1/jobs/validate", "job-validate", "Check a job as POST /v1/jobs does, and make nothing.", s.validateJob, s),
		read("/v1/jobs", "job-list", PermRead, "Jobs, newest first.", s.jobs).with(
			textParam("sandbox", "only of this sandbox (VMID, name or id)"), limit),
		read("/v1/jobs/{id}", "job-get", PermRead, "One job with its artifacts.", s.job).with(
			intParam("events_tail", "with the newest events, this many", 0, maxLimit), waitParam),
		stream("/v1/jobs/{id}/log", "job-log", PermRead,
			"The job's log; header "+api.LogOffsetHeader+" says where the answer begins.", "text/plain", s.jobLog).with(
			intParam("offset", "begin at this byte", 0, 0),
			intParam("tail", "only the last lines; wins over offset", 0, maxTailLines),
			flagParam("follow", "stay until the job has ended and the log is whole")),
		work(http.MethodPost, "/v1/jobs/{id}/cancel", "job-cancel", "Stop a job.", s.cancelJob, s),
		read("/v1/jobs/{id}/artifacts", "job-artifacts", PermRead, "What a job left behind, by path.", s.jobArtifacts),
		stream("/v1/jobs/{id}/artifacts/{path...}", "job-artifact", PermRead,
			"One file of a job.", "application/octet-stream", s.jobArtifact),
		stream("/v1/jobs/{id}/artifacts.tar.gz", "job-archive", PermRead,
			"All files of a job in one archive.", "application/gzip", s.jobArchive),

		read("/v1/operations", "operation-list", PermRead, "Operations, newest first.", s.operations).with(
			textParam("sandbox", "only on this sandbox (VMID, name or id)"), textParam("job", "only for this job"),
			flagParam("open", "only those that have not ended"), limit),
		read("/v1/operations/{id}", "operation-get", PermRead, "One operation with its steps.", s.operation).with(waitParam),
		work(http.MethodPost, "/v1/operations/{id}/cancel", "operation-cancel",
			"Stop an operation: what it made is undone, a job is cancelled; asked again, answers the same.", s.cancelOperation, s),

		stream("/v1/events", "event-stream", PermRead,
			"Events as they happen (Server-Sent Events); resumes behind Last-Event-ID or after.", "text/event-stream", s.eventStream).with(
			intParam("after", "resume behind this event id; 0 is the oldest", 0, 0),
			intParam("tail", "without after: begin with the newest events, this many", 0, maxLimit),
			textParam("since", "without after: begin with the events from this time (RFC 3339) on"),
			flagParam("follow", "false: end when all that is there was sent"),
			textParam("sandbox", "only of this sandbox (VMID, name or id)"), textParam("job", "only of this job"),
			textParam("operation", "only of this operation"), textsParam("type", "only of this type")),

		{
			method: http.MethodPost, path: "/v1/repos", id: "repo-upload", permission: PermOperate,
			summary: "Upload a repository archive for a job.", status: http.StatusCreated,
			inMedia: "application/x-tar", out: reflect.TypeFor[api.Repo](), serve: s.uploadRepo,
		},
		{
			method: http.MethodDelete, path: "/v1/repos/{id}", id: "repo-delete", permission: PermOperate,
			summary: "Remove an uploaded repository that no job took.", status: http.StatusNoContent, serve: s.deleteRepo,
		},
	}
}
