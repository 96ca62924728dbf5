package control

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

const schemaPrefix = "#/components/schemas/"

// newRegistry knows the schema of every body in the table, so that requests
// only read it. Requests refuse unknown fields; answers may grow some, so
// clients must not.
func newRegistry(routes []route) huma.Registry {
	reg := huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)
	reg.Schema(reflect.TypeFor[api.Problem](), true, "")
	reg.Schema(reflect.TypeFor[api.Event](), true, "")
	for _, rt := range routes {
		for _, t := range []reflect.Type{rt.in, rt.out} {
			if t != nil {
				reg.Schema(t, true, rt.id)
			}
		}
	}
	mayGrow(reg, func(name string) bool {
		return !slices.ContainsFunc(routes, func(rt route) bool { return rt.in != nil && rt.in.Name() == name })
	})
	return reg
}

// mayGrow lets the schemas of those names have unknown fields.
func mayGrow(reg huma.Registry, these func(name string) bool) {
	for name, schema := range reg.Map() {
		if schema.AdditionalProperties == false && these(name) {
			schema.AdditionalProperties = nil
		}
	}
}

// JSONSchema describes a type as the OpenAPI document does, in a document of
// its own. What it describes may grow fields.
func JSONSchema(title string, t reflect.Type) ([]byte, error) {
	const prefix = "#/$defs/"
	reg := huma.NewMapRegistry(prefix, huma.DefaultSchemaNamer)
	root := reg.Schema(t, true, title)
	mayGrow(reg, func(string) bool { return true })
	b, err := json.MarshalIndent(struct {
		Dialect string                  `json:"$schema"`
		Title   string                  `json:"title"`
		Ref     string                  `json:"$ref"`
		Defs    map[string]*huma.Schema `json:"$defs"`
	}{"https://json-schema.org/draft/2020-12/schema", title, root.Ref, reg.Map()}, "", "  ")
	if err != nil {
		return nil, fault.New(fault.Internal, "encode schema %s: %w", title, err)
	}
	return append(b, '\n'), nil
}

// OpenAPI is the document made from the table, as JSON.
func (s *Server) OpenAPI() ([]byte, error) {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "AgentLab control API", Version: "1",
			Description: "Requests that take time answer 202 with an operation. Errors are application/problem+json.",
		},
		Components: &huma.Components{Schemas: s.registry},
	}
	for _, rt := range s.routes {
		doc.AddOperation(s.describe(rt))
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fault.New(fault.Internal, "encode openapi document: %w", err)
	}
	return append(b, '\n'), nil
}

func (s *Server) openapi(*http.Request) (json.RawMessage, error) { return s.OpenAPI() }

func (s *Server) describe(rt route) *huma.Operation {
	op := &huma.Operation{
		Method: rt.method, Path: strings.ReplaceAll(rt.path, "...}", "}"),
		OperationID: rt.id, Summary: rt.summary,
		Responses:  map[string]*huma.Response{},
		Extensions: map[string]any{"x-permission": string(rt.permission)},
	}
	for _, name := range pathParams(rt.path) {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
		})
	}
	for _, p := range rt.query {
		schema := &huma.Schema{Type: p.kind, Minimum: p.min, Maximum: p.max}
		if p.repeat {
			schema = &huma.Schema{Type: huma.TypeArray, Items: schema}
		}
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.name, In: "query", Description: p.doc, Schema: schema})
	}
	switch {
	case rt.in != nil:
		op.RequestBody = &huma.RequestBody{Required: true, Content: s.content(rt.in, "")}
	case rt.inMedia != "":
		op.RequestBody = &huma.RequestBody{Required: true, Content: s.content(nil, rt.inMedia)}
	}
	op.Responses[strconv.Itoa(rt.status)] = &huma.Response{
		Description: http.StatusText(rt.status), Content: s.content(rt.out, rt.outMedia),
	}
	if rt.status == http.StatusAccepted {
		op.Responses["200"] = &huma.Response{Description: "The work has ended (with wait).", Content: s.content(rt.out, "")}
	}
	op.Responses["default"] = &huma.Response{
		Description: "Error",
		Content: map[string]*huma.MediaType{api.ProblemType: {
			Schema: s.registry.Schema(reflect.TypeFor[api.Problem](), true, ""),
		}},
	}
	return op
}

func (s *Server) content(t reflect.Type, media string) map[string]*huma.MediaType {
	if t == nil {
		return map[string]*huma.MediaType{media: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	}
	return map[string]*huma.MediaType{"application/json": {Schema: s.registry.Schema(t, true, "")}}
}

func pathParams(path string) (names []string) {
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, "{") {
			names = append(names, strings.TrimSuffix(strings.Trim(part, "{}"), "..."))
		}
	}
	return names
}
