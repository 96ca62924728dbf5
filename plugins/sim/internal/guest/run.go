package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const logChunk = 256 << 10

// run is the agent at work. Played again by another process, it goes through
// the same actions: sleeps that are over take no time, and of the log only what
// the host does not have yet is sent.
type run struct {
	*guest
	payload payload
	quiet   func()          // ends the signs of life
	beaten  <-chan struct{} // closed after the first of them
	written int64           // by the agent so far
	held    int64           // by the host, as far as it told us
	exit    int
}

func (r *run) all(ctx context.Context, actions []action) error {
	if err := r.say(ctx, []byte("the simulated agent begins\n")); err != nil {
		return err
	}
	for _, a := range actions {
		if err := r.one(ctx, a); err != nil {
			return fmt.Errorf("sim:%s: %w", a.word, err)
		}
	}
	return r.say(ctx, []byte("the simulated agent ends\n"))
}

func (r *run) one(ctx context.Context, a action) error {
	switch a.word {
	case "sleep":
		return pause(ctx, time.Until(r.disk.Job.Started.Add(a.at)))
	case "beat":
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.beaten:
		}
	case "print":
		return r.say(ctx, []byte(a.arg+"\n"))
	case "log":
		for left := a.n; left > 0; left -= logChunk {
			if err := r.say(ctx, filler(min(left, logChunk))); err != nil {
				return err
			}
		}
	case "leak":
		return r.say(ctx, []byte(a.arg+"="+r.secret(a.arg)+"\n"))
	case "artifact":
		return r.upload(ctx, r.payload.Job.ID, a.arg, filler(a.n))
	case "exit":
		r.exit = int(a.n)
	case "hang", "stuck":
		<-ctx.Done()
		return context.Cause(ctx)
	case "silent":
		r.quiet()
		r.disk.Job.Silent = true
		if err := r.save(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	case "poweroff", "reboot":
		if err := r.power(ctx, a.word == "reboot"); err != nil {
			return err
		}
		<-ctx.Done() // the machine is gone
		return context.Cause(ctx)
	}
	return nil
}

func (r *run) secret(name string) string {
	var doc struct {
		Env map[string]string `json:"env"`
	}
	_ = json.Unmarshal(r.payload.Secrets, &doc) // no secrets is an answer too
	return doc.Env[name]
}

// say writes to the log and waits until the host has it.
func (r *run) say(ctx context.Context, text []byte) error {
	start := r.written
	r.written += int64(len(text))
	for r.held < r.written {
		from := max(r.held, start)
		status, answer, err := r.insist(ctx, request{
			op: "guest.log", method: http.MethodPost, path: logPath,
			query: url.Values{"job": {r.payload.Job.ID}, "offset": {strconv.FormatInt(from, 10)}},
			body:  text[from-start:], kind: "application/octet-stream",
			accept: []int{http.StatusConflict, http.StatusRequestEntityTooLarge},
		})
		if err != nil {
			return fmt.Errorf("send log: %w", err)
		}
		if status == http.StatusRequestEntityTooLarge {
			return errLogFull
		}
		var reply logReply
		if err := json.Unmarshal(answer, &reply); err != nil {
			return fmt.Errorf("send log: answer cannot be read")
		}
		if status == http.StatusConflict && reply.Offset < start {
			return fmt.Errorf("send log: the host lost what it had")
		}
		r.held = reply.Offset
	}
	return nil
}
