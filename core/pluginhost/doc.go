// Package pluginhost runs the configured plugins, one process each, and gives
// the rest of the daemon drivers that stay valid while processes come and go.
//
// For each plugin block it starts the binary, asks for the schema of its
// configuration, decodes the block's config body by it, and configures the
// plugin. What is wrong with a configuration is told with file and line, also
// when only the plugin can know. A process that ends is started again after a
// growing pause; a plugin that does not come up never stops the daemon: calls
// to it fail with its name and the cause.
//
//	Starting → Ready ⇄ Degraded → Backoff → Starting …
//	Starting → Failed (its configuration is wrong)
package pluginhost
