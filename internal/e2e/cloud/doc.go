// Package cloud tests that a Debian guest with cloud-init, booted by firmware
// and GRUB as on a Proxmox host, takes the seed that AgentLab renders, and that
// the agent-runner of the other image works in it unchanged. One guest is booted
// once and rebooted once; all tests share it.
package cloud
