package control

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agentlab/agentlab/sdk/fault"
)

// param is one query parameter.
type param struct {
	name   string
	kind   string // a JSON schema type
	doc    string
	repeat bool
	min    *float64
	max    *float64
}

func flagParam(name, doc string) param { return param{name: name, kind: huma.TypeBoolean, doc: doc} }
func textParam(name, doc string) param { return param{name: name, kind: huma.TypeString, doc: doc} }
func textsParam(name, doc string) param {
	return param{name: name, kind: huma.TypeString, doc: doc, repeat: true}
}

func intParam(name, doc string, low, high float64) param {
	p := param{name: name, kind: huma.TypeInteger, doc: doc, min: &low}
	if high > 0 {
		p.max = &high
	}
	return p
}

// longestWait is the most that ?wait gives, in one request.
const longestWait = 10 * time.Minute

var waitParam = textParam("wait", "wait this long (30s; at most 10m) for the end of the work; an empty value is 1m")

// checkQuery refuses parameters that the route does not have and values that
// are not of their type.
func checkQuery(r *http.Request, params []param) error {
	for name, values := range r.URL.Query() {
		i := slices.IndexFunc(params, func(p param) bool { return p.name == name })
		if i < 0 {
			return fault.New(fault.Invalid, "there is no parameter %q here", name)
		}
		if len(values) > 1 && !params[i].repeat {
			return fault.New(fault.Invalid, "parameter %q is given %d times", name, len(values))
		}
		for _, v := range values {
			if err := params[i].check(v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p param) check(v string) error {
	switch p.kind {
	case huma.TypeBoolean:
		if v != "" && v != "true" && v != "false" {
			return fault.New(fault.Invalid, "parameter %q is %q, not true or false", p.name, v)
		}
	case huma.TypeInteger:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fault.New(fault.Invalid, "parameter %q is %q, not a whole number", p.name, v)
		}
		if (p.min != nil && float64(n) < *p.min) || (p.max != nil && float64(n) > *p.max) {
			return fault.New(fault.Invalid, "parameter %q is %d, out of its range", p.name, n)
		}
	}
	return nil
}

// queryFlag reads a boolean; ?name alone is true.
func queryFlag(r *http.Request, name string) bool {
	return r.URL.Query().Has(name) && r.URL.Query().Get(name) != "false"
}

// queryInt reads a number that checkQuery let pass.
func queryInt(r *http.Request, name string, otherwise int64) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// waitLimit reads ?wait: 0 when it is not there.
func waitLimit(r *http.Request) (time.Duration, error) {
	if !r.URL.Query().Has("wait") {
		return 0, nil
	}
	v := strings.TrimSpace(r.URL.Query().Get("wait"))
	switch v {
	case "", "true":
		return time.Minute, nil
	case "false":
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > longestWait {
		return 0, fault.New(fault.Invalid, "parameter \"wait\" is %q, not a duration up to %s", v, longestWait)
	}
	return d, nil
}
