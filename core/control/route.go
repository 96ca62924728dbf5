package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
)

// route is one row of the table.
type route struct {
	method     string
	path       string // ServeMux pattern
	id         string // operation id in OpenAPI
	permission Permission
	summary    string
	query      []param
	status     int          // of success
	in, out    reflect.Type // JSON bodies; nil for none
	inMedia    string       // of a body that is not JSON
	outMedia   string       // of an answer that is not JSON
	serve      func(w http.ResponseWriter, r *http.Request) error
}

// with adds query parameters.
func (r route) with(query ...param) route {
	r.query = append(slices.Clone(r.query), query...)
	return r
}

// read is a GET that answers JSON.
func read[O any](path, id string, need Permission, summary string, f func(r *http.Request) (O, error)) route {
	return route{
		method: http.MethodGet, path: path, id: id, permission: need, summary: summary,
		status: http.StatusOK, out: reflect.TypeFor[O](),
		serve: func(w http.ResponseWriter, r *http.Request) error {
			out, err := f(r)
			if err != nil {
				return err
			}
			return answer(w, http.StatusOK, out)
		},
	}
}

// work is a request that takes time: it answers 202, or 200 when ?wait was
// given and all is done.
func work(method, path, id, summary string, f func(r *http.Request) (api.Accepted, error), s *Server) route {
	return route{
		method: method, path: path, id: id, permission: PermOperate, summary: summary,
		status: http.StatusAccepted, out: reflect.TypeFor[api.Accepted](), query: []param{waitParam},
		serve: func(w http.ResponseWriter, r *http.Request) error {
			limit, err := waitLimit(r)
			if err != nil {
				return err
			}
			accepted, err := f(r)
			if err != nil {
				return err
			}
			status := http.StatusAccepted
			if limit > 0 {
				var done bool
				if accepted, done, err = s.awaitAccepted(r.Context(), limit, accepted); err != nil {
					return err
				}
				if done {
					status = http.StatusOK
				}
			}
			w.Header().Set("Location", "/v1/operations/"+accepted.Operation.ID)
			return answer(w, status, accepted)
		},
	}
}

// create is work with a JSON body.
func create[I any](path, id, summary string, f func(r *http.Request, in I) (api.Accepted, error), s *Server) route {
	rt := work(http.MethodPost, path, id, summary, func(r *http.Request) (api.Accepted, error) {
		var in I
		if err := s.body(r, &in); err != nil {
			return api.Accepted{}, err
		}
		return f(r, in)
	}, s)
	rt.in = reflect.TypeFor[I]()
	return rt
}

// ask is a question with a JSON body, answered at once.
func ask[I, O any](path, id, summary string, f func(r *http.Request, in I) (O, error), s *Server) route {
	rt := read(path, id, PermOperate, summary, func(r *http.Request) (O, error) {
		var in I
		if err := s.body(r, &in); err != nil {
			var none O
			return none, err
		}
		return f(r, in)
	})
	rt.method, rt.in = http.MethodPost, reflect.TypeFor[I]()
	return rt
}

// stream is a GET that writes its answer itself.
func stream(path, id string, need Permission, summary, media string, f func(w http.ResponseWriter, r *http.Request) error) route {
	return route{
		method: http.MethodGet, path: path, id: id, permission: need, summary: summary,
		status: http.StatusOK, outMedia: media, serve: f,
	}
}

func answer(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.Internal, "encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the reader is gone if this fails
	return nil
}

// body decodes and checks a JSON body; unknown fields are refused.
func (s *Server) body(r *http.Request, in any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || mt != "application/json" {
			return statusError{http.StatusUnsupportedMediaType, fault.New(fault.Invalid, "body is %q, not application/json", ct)}
		}
	}
	b, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return statusError{http.StatusRequestEntityTooLarge, fault.New(fault.Exhausted, "body is larger than %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return fault.New(fault.Unavailable, "read body: %w", err)
	}
	var loose any
	if err := json.Unmarshal(b, &loose); err != nil {
		return fault.New(fault.Invalid, "body is not JSON: %w", err)
	}
	path, result := huma.NewPathBuffer(nil, 0), &huma.ValidateResult{}
	schema := s.registry.Schema(reflect.TypeOf(in).Elem(), true, "")
	huma.Validate(s.registry, schema, path, huma.ModeWriteToServer, loose, result)
	if len(result.Errors) > 0 {
		lines := make([]string, len(result.Errors))
		for i, e := range result.Errors {
			lines[i] = detail(e)
		}
		return problem.WithDetails(fault.New(fault.Invalid, "request is not valid: %s", strings.Join(lines, "; ")), lines)
	}
	if err := json.Unmarshal(b, in); err != nil {
		return fault.New(fault.Invalid, "request is not valid: %w", err)
	}
	return nil
}

func detail(err error) string {
	if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
		if d.Location == "" {
			return d.Message
		}
		return d.Location + ": " + d.Message
	}
	return err.Error()
}

// statusError overrides the status that the error's class has.
type statusError struct {
	status int
	err    error
}

func (e statusError) Error() string { return e.err.Error() }
func (e statusError) Unwrap() error { return e.err }

// mux turns the table into a handler.
func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range s.routes {
		mux.Handle(rt.method+" "+rt.path, s.guard(rt))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			probe := r.Clone(r.Context())
			probe.Method = m
			if _, pattern := mux.Handler(probe); pattern != "/" {
				allow = append(allow, m)
			}
		}
		if len(allow) == 0 {
			problem.Write(w, fault.New(fault.NotFound, "there is no %s", r.URL.Path))
			return
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		problem.WriteStatus(w, http.StatusMethodNotAllowed,
			fault.New(fault.Invalid, "%s does not take %s", r.URL.Path, r.Method))
	})
	return mux
}

// guard is all that happens around a route: authorization, the body's limit,
// errors, panics and the audit line.
func (s *Server) guard(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		err := s.attempt(rt, rec, r)
		if err != nil {
			if rec.status != 0 { // the answer has begun: only a cut tells the reader
				s.log.Debug("answer cut short", "route", rt.id, "err", err)
				panic(http.ErrAbortHandler)
			}
			status := 0
			if se, ok := errors.AsType[statusError](err); ok {
				status = se.status
			}
			problem.WriteStatus(rec, status, err)
		}
		s.audit(rt, r, rec.status, time.Since(start), err)
	})
}

func (s *Server) attempt(rt route, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("route panicked", "route", rt.id, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "the daemon failed on this request").WithHint("see the daemon's log")
		}
	}()
	if err := authorize(r, rt.permission); err != nil {
		return err
	}
	if err := checkQuery(r, rt.query); err != nil {
		return err
	}
	if rt.inMedia == "" {
		s.takeBody(w, r)
	}
	return rt.serve(w, r)
}

// takeBody reads a small body within its time. No deadline stays behind: one
// that passes while the answer is being written ends the request's context, and
// with it every stream and wait that is longer.
func (s *Server) takeBody(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(s.bodyTimeout))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxBody))
	_ = conn.SetReadDeadline(time.Time{})
	r.Body = &takenBody{bytes.NewReader(b), err}
}

// takenBody is a body that was read, and the error at its end.
type takenBody struct {
	*bytes.Reader
	err error
}

func (b *takenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && b.err != nil {
		err = b.err
	}
	return n, err
}

func (b *takenBody) Close() error { return nil }

func (s *Server) audit(rt route, r *http.Request, status int, took time.Duration, err error) {
	level := s.log.Debug
	if rt.permission == PermOperate {
		level = s.log.Info
	}
	p, _ := peerOf(r)
	args := []any{"route", rt.id, "path", r.URL.Path, "uid", p.uid, "pid", p.pid, "status", status, "took", took}
	if err != nil {
		args = append(args, "err", err)
	}
	level("call answered", args...)
}

// recorder remembers the status, so that an error after it cuts the answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
