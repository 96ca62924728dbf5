// Command agentlab-plugin-netfilter joins sandboxes to a bridge and enforces
// their network policies with nftables.
package main
