// Package guestclient speaks the guest API to the sandbox's host.
package guestclient
