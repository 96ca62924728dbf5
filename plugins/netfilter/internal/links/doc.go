// Package links makes and reads the agent bridge, its ports and the sysctls
// that belong to them.
//
// Everything goes through netlink, never /sys/class/net: the program may run in
// a network namespace that the mounted sysfs does not show.
package links
