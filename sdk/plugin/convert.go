package plugin

import "github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"

func diagnosticsToWire(in []Diagnostic) []*pluginv1.Diagnostic {
	var out []*pluginv1.Diagnostic
	for _, d := range in {
		w := &pluginv1.Diagnostic{Severity: pluginv1.Diagnostic_SEVERITY_ERROR, Summary: d.Summary, Detail: d.Detail}
		if d.Severity == SeverityWarning {
			w.Severity = pluginv1.Diagnostic_SEVERITY_WARNING
		}
		if len(d.Path) > 0 {
			w.Path = pathToWire(d.Path)
		}
		out = append(out, w)
	}
	return out
}

func pathToWire(p Path) *pluginv1.AttributePath {
	out := &pluginv1.AttributePath{}
	for _, s := range p {
		w := &pluginv1.AttributePath_Step{}
		switch s := s.(type) {
		case Attr:
			w.Selector = &pluginv1.AttributePath_Step_Attribute{Attribute: string(s)}
		case Key:
			w.Selector = &pluginv1.AttributePath_Step_Key{Key: string(s)}
		case Index:
			w.Selector = &pluginv1.AttributePath_Step_Index{Index: int64(s)}
		}
		out.Steps = append(out.Steps, w)
	}
	return out
}

// diagnosticsFromWire takes a severity that it does not know for an error.
func diagnosticsFromWire(in []*pluginv1.Diagnostic) []Diagnostic {
	var out []Diagnostic
	for _, w := range in {
		d := Diagnostic{Severity: SeverityError, Summary: w.GetSummary(), Detail: w.GetDetail()}
		if w.GetSeverity() == pluginv1.Diagnostic_SEVERITY_WARNING {
			d.Severity = SeverityWarning
		}
		for _, s := range w.GetPath().GetSteps() {
			switch s := s.GetSelector().(type) {
			case *pluginv1.AttributePath_Step_Attribute:
				d.Path = append(d.Path, Attr(s.Attribute))
			case *pluginv1.AttributePath_Step_Key:
				d.Path = append(d.Path, Key(s.Key))
			case *pluginv1.AttributePath_Step_Index:
				d.Path = append(d.Path, Index(s.Index))
			}
		}
		out = append(out, d)
	}
	return out
}

func failed(in []Diagnostic) bool {
	for _, d := range in {
		if d.Severity != SeverityWarning {
			return true
		}
	}
	return false
}

var healthStates = map[HealthState]pluginv1.HealthResponse_State{
	Ready:       pluginv1.HealthResponse_STATE_READY,
	Degraded:    pluginv1.HealthResponse_STATE_DEGRADED,
	Unavailable: pluginv1.HealthResponse_STATE_UNAVAILABLE,
}
