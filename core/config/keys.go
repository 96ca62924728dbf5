package config

// about is what the reference says of a key.
type about struct {
	value    string // default, as written in HCL
	duration bool
	noEffect bool
	help     string
}

// keyTable has every key and block by its path. TestEveryKeyIsDescribed keeps
// it whole.
var keyTable = map[string]about{
	"data_dir":     {value: `"/var/lib/agentlab"`, help: "Directory of the database, the artifacts and the state of plugins."},
	"run_dir":      {value: `"/run/agentlab"`, help: "Directory of the sockets. Keep it short: the path of a Unix socket has at most 107 bytes."},
	"log_file":     {value: `"/var/log/agentlab/agentlabd.log"`, help: `File that the log is written to, besides standard error. "" writes none.`},
	"profiles_dir": {value: `"/etc/agentlab/profiles"`, help: "Directory of the profiles, files `*.hcl`. They are read at each request."},
	"plugin_dir":   {value: `"/usr/lib/agentlab/plugins"`, help: "Directory of the plugins' binaries, `agentlab-plugin-NAME`."},

	"agent_bridge": {value: `"vmbr1"`, help: "Bridge that the sandboxes are on."},
	"agent_subnet": {value: `"10.77.0.0/16"`, help: "IPv4 subnet of the sandboxes, from /8 to /28."},
	"guest_listen": {value: `"10.77.0.1:8844"`, help: "Address and port where guests reach the daemon; the default is port 8844 on the first address of `agent_subnet`."},

	"ssh_public_key_path": {help: "Public key of the operator, which every sandbox lets in. Without it `agentlab ssh` finds no entry."},
	"secrets_bundle":      {help: "Bundle of secrets for profiles that name none. Without it their sandboxes get no secrets."},

	"artifact_max_bytes":   {value: "268435456", help: "Largest artifact, in bytes."},
	"artifact_quota_bytes": {value: "2147483648", help: "Most bytes of all artifacts of one job."},
	"log_max_bytes":        {value: "67108864", help: "Most bytes that are kept of one job's log."},
	"provisioning_timeout": {value: `"10m"`, duration: true, help: "Longest time from the request for a sandbox until its guest answers, from 10s to 1h. It holds for sandboxes asked for afterwards."},

	"metrics_listen":              {value: `""`, help: `Loopback address and port of the metrics, such as "127.0.0.1:8847". "" serves none.`},
	"control_listen":              {value: `""`, help: `Address and port of the control API over TCP, such as "127.0.0.1:8845". "" serves it on the Unix socket only.`},
	"control_auth_token":          {help: "Token that callers of `control_listen` show. It is required there."},
	"control_allow_cidrs":         {value: "[]", help: "Networks from which `control_listen` takes calls."},
	"idle_stop_enabled":           {value: "true", help: "Whether idle sandboxes are stopped."},
	"idle_stop_interval":          {value: `"1m"`, duration: true, help: "Time between two looks for idle sandboxes."},
	"idle_stop_minutes_default":   {value: "30", help: "Minutes without activity after which a sandbox is stopped, for profiles that do not say."},
	"idle_stop_cpu_threshold":     {value: "0.05", help: "Share of one CPU below which a sandbox counts as idle."},
	"artifact_token_ttl_minutes":  {value: "1440", help: "Minutes that a token for uploads is good for."},
	"claude_skill_bundle_name":    {help: "Skill bundle that is installed; the installer writes it."},
	"claude_skill_bundle_version": {help: "Version of the skill bundle that is installed; the installer writes it."},

	"plugin":         {help: "One plugin, with its kind (hypervisor, network, secrets or exposure) and its name. There is one of each kind at most."},
	"plugin.path":    {help: "Path of the binary; the default is `agentlab-plugin-NAME` in `plugin_dir`."},
	"plugin.sha256":  {help: "SHA-256 of the binary in hex; another binary is not started. `agentlab plugin lock` writes it."},
	"plugin.confine": {value: "true", help: "Whether the plugin gets only the user, the capabilities and the network that it asks for; false leaves it all that the daemon may."},
	"plugin.allow":   {help: "The most that the plugin may ask for: capabilities, `root` (the daemon's own user, also where only root may open a device that the plugin uses), `user:NAME` (another account), `network`, and `workloads` (what it starts outlives it, so it is not confined). Without it, whatever it asks for."},
	"plugin.config":  {help: "What the plugin itself is told. Its keys are the plugin's own."},

	"profile":                {help: "One profile; its label is the name that `--profile` takes. A file may hold several."},
	"profile.template_vmid":  {help: "VMID of the template. Either this or `template` is required."},
	"profile.template":       {help: "Name of the template."},
	"profile.secrets_bundle": {help: "Bundle of secrets; the default is `secrets_bundle` of config.hcl."},

	"profile.resources":           {help: "What a VM of this profile has."},
	"profile.resources.cores":     {value: "2", help: "CPU cores, from 1 to 256."},
	"profile.resources.memory_mb": {value: "2048", help: "Memory in MiB, from 128."},
	"profile.resources.disk_gb":   {value: "0", help: "Size of the disk in GiB; 0 takes the template's."},

	"profile.network":       {help: "What a sandbox may reach. Whatever this says, it reaches the guest API of its host."},
	"profile.network.mode":  {value: `"nat"`, help: "`nat`: the Internet without private ranges; `allowlist`: what `allow` lists; `off`: nothing."},
	"profile.network.allow": {value: "[]", help: "Destinations, each a CIDR or CIDR:port. Under `nat` they come on top."},

	"profile.agent":         {help: "The agent that a job runs."},
	"profile.agent.command": {help: "Shell line, or `claude`, `codex` or `opencode`. Without it a job runs `.agentlab/run.sh` of the repository."},
	"profile.agent.mode":    {value: `"default"`, help: "`dangerous` lets the agent's program skip its own questions."},

	"profile.behavior":                           {help: "How a sandbox lives and ends."},
	"profile.behavior.ttl_minutes_default":       {value: "120", help: "Minutes that a job or a sandbox may take when its request does not say."},
	"profile.behavior.idle_stop_minutes_default": {noEffect: true, help: "Minutes without activity after which a sandbox is stopped; 0 never stops one."},
	"profile.behavior.on_job_end":                {value: `"destroy"`, help: "What becomes of a sandbox when its job has ended: `destroy`, `stop` or `keep`."},
	"profile.behavior.inner_sandbox":             {value: `"none"`, help: "`bubblewrap` runs the agent in a mount namespace of its own inside the VM."},
	"profile.behavior.inner_sandbox_args":        {value: "[]", help: "Further arguments for bubblewrap, one token each."},

	"profile.artifacts":                {help: "What jobs leave behind."},
	"profile.artifacts.retention_days": {value: "0", help: "Days after a job's end for which its artifacts and its log are kept; 0 keeps them. It holds for sandboxes made from then on."},

	"profile.repo":           {help: "Where the repository goes."},
	"profile.repo.path":      {help: "Absolute path in the guest."},
	"profile.guest":          {help: "What the guest is like."},
	"profile.guest.ssh_user": {value: `"agent"`, help: "User that `agentlab ssh` logs in as."},
}
