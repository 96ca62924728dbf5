package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Class says what kind of failure an error is. A Class is itself an error, so
// it works as the target of errors.Is.
type Class string

// The classes. What each means to a caller is the contract; messages are not.
const (
	Invalid      Class = "invalid"      // the request can never work as it is
	NotFound     Class = "not_found"    // the named thing certainly does not exist
	Exists       Class = "exists"       // the name is taken by something else
	Conflict     Class = "conflict"     // somebody changed it first; read again
	Locked       Class = "locked"       // busy with another task; Holder says whose
	Denied       Class = "denied"       // the caller may not
	Exhausted    Class = "exhausted"    // a quota, pool or disk is full
	Precondition Class = "precondition" // the thing is in the wrong state for this
	Unavailable  Class = "unavailable"  // a dependency is down; later may work
	Timeout      Class = "timeout"      // a deadline passed; the effect is unknown
	Unsupported  Class = "unsupported"  // this backend never does this
	Internal     Class = "internal"     // a defect of ours
)

// Classes lists every class, in the order of the wire enumeration.
func Classes() []Class {
	return []Class{
		Invalid, NotFound, Exists, Conflict, Locked, Denied, Exhausted,
		Precondition, Unavailable, Timeout, Unsupported, Internal,
	}
}

// Error makes a Class usable as a target of errors.Is.
func (c Class) Error() string { return strings.ReplaceAll(string(c), "_", " ") }

// Error is a classified failure. Message says what went wrong, Hint what the
// reader can do about it; the rest is set where it is known. No field may hold
// a secret.
type Error struct {
	Class      Class
	Message    string
	Hint       string
	Resource   string        // "vm 1042", "bundle default"
	Holder     string        // for Locked and Exists: who holds it
	Command    string        // external command that failed, secrets removed
	ExitCode   int           // of Command; 0 when it did not run to its end
	Stderr     string        // tail of Command's stderr
	RetryAfter time.Duration // 0: no advice
	Err        error         // cause, may be nil
}

// New returns an error of the class. The format may use %w for the cause.
func New(c Class, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Class: c, Message: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

// WithHint returns a copy that tells the reader what to do.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithResource returns a copy that names the thing concerned.
func (e *Error) WithResource(format string, args ...any) *Error {
	c := *e
	c.Resource = fmt.Sprintf(format, args...)
	return &c
}

// WithHolder returns a copy that names who holds the thing.
func (e *Error) WithHolder(holder string) *Error {
	c := *e
	c.Holder = holder
	return &c
}

// Error gives the message, and the failed command's last words if there are any.
func (e *Error) Error() string {
	msg := e.Message
	if msg == "" {
		msg = e.Class.Error()
	}
	if e.Stderr != "" {
		msg += ": " + strings.TrimSpace(lastLine(e.Stderr))
	}
	return msg
}

// Is reports whether target is this error's class.
func (e *Error) Is(target error) bool {
	c, ok := target.(Class)
	return ok && c == e.Class
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf finds the class of err: that of the outermost classified error, else
// Timeout for a passed deadline, Unavailable for a cancelled call, and Internal
// for everything that was never classified. It is "" for nil.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	var c Class
	if errors.As(err, &c) {
		return c
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Unavailable
	}
	return Internal
}

// HintOf gives the outermost hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\r\n ")
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		return s[i+1:]
	}
	return s
}
