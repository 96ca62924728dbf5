// Package tap opens the tap devices that the network plugin has made, and reads
// their counters.
package tap
