// Package confine runs programs as the agent's user, inside a control group
// whose limits keep the rest of the guest alive and whose kill switch leaves
// nothing behind.
package confine
