// Package tap opens the tap devices that the network plugin has made, and reads
// their counters. Those it makes itself lead nowhere.
package tap
