// Package pluginhost runs the configured plugins, one process each, and gives
// the rest of the daemon drivers that stay valid while processes come and go.
//
// For each plugin block it starts the binary, asks for the schema of its
// configuration, decodes the block's config body by it, and configures the
// plugin. What is wrong with a configuration is told with file and line, also
// when only the plugin can know. A plugin that does not come up never stops the
// daemon: calls to it fail at once with its name, the cause and the id of the
// crash report.
//
//	Starting → Ready ⇄ Degraded
//	Ready, Degraded → Starting     its process fell after it ran well
//	Starting, Ready, Degraded → Backoff → Starting
//	                               it fell again
//	Starting, Ready, Degraded → Quarantined → Starting
//	                               it fell too often; it is tried now and then,
//	                               and is trusted again when it stays well
//	Starting → Failed              its configuration is wrong
//
// A process falls when it ends, when it does not answer its health check for
// some time though it is there, and when it does not come up. One that is busy
// but answers is left alone.
//
// # Replacing a process
//
// Restart and Reload start the new process beside the old one, configure it and
// see that it answers, send new calls to it, and end the old one when its calls
// have. If the new one does not come up, the old one stays. A plugin that says
// it is exclusive is drained and ended before the new process is configured;
// calls wait meanwhile, and when that fails the old block is started again.
//
// # Calls
//
// A call lost to a process that fell is made again at the next one as far as its
// method's idempotency_level allows it; what converges by name needs no more.
package pluginhost
