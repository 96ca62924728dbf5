package conformance

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// State is how a check ended.
type State string

// Skipped: it does not apply, or was not asked for; Reason says why.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Result is what came of one check.
type Result struct {
	ID       string      `json:"id"`
	Kind     plugin.Kind `json:"kind,omitempty" doc:"empty: of every kind"`
	Level    Level       `json:"level"`
	About    string      `json:"about"`
	State    State       `json:"state" enum:"passed,failed,skipped"`
	Seconds  float64     `json:"seconds"`
	Got      string      `json:"got,omitempty" doc:"what came, of a failure"`
	Expected string      `json:"expected,omitempty"`
	Contract string      `json:"contract,omitempty" doc:"the sentence of the contract that was broken"`
	Reason   string      `json:"reason,omitempty" doc:"why it was skipped"`
	withheld bool
}

// Report is what came of all checks.
type Report struct {
	Binary  string   `json:"binary"`
	Plugin  string   `json:"plugin,omitempty"`
	Version string   `json:"version,omitempty"`
	Level   Level    `json:"level"`
	Seconds float64  `json:"seconds"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	Results []Result `json:"results"`
}

// resultOf turns the error of a check into its result.
func resultOf(r Rule, err error, took time.Duration) Result {
	out := Result{ID: r.ID, Kind: r.Kind, Level: r.Level, About: r.About, State: Passed, Seconds: took.Round(time.Millisecond).Seconds()}
	switch {
	case errors.Is(err, ErrSkipped):
		out.withheld = errors.Is(err, errDestructive)
		out.State, out.Reason = Skipped, needed(err)
	case err != nil:
		out.State, out.Contract = Failed, r.Contract
		out.Got, out.Expected = broken(err)
	}
	return out
}

// explain is the text of a failure.
func explain(r Rule, err error) string {
	got, want := broken(err)
	return fmt.Sprintf("%s\n     got:      %s\n     expected: %s\n     contract: %s", r.About, got, want, r.Contract)
}

// Withheld reports whether the check was not made because it changes the host.
func (r Result) Withheld() bool { return r.State == Skipped && r.withheld }

// Withheld counts the checks that were not made because they change the host.
func (r Report) Withheld() (n int) {
	for _, one := range r.Results {
		if one.Withheld() {
			n++
		}
	}
	return n
}

func (r *Report) add(one Result) {
	r.Results = append(r.Results, one)
	switch one.State {
	case Passed:
		r.Passed++
	case Failed:
		r.Failed++
	case Skipped:
		r.Skipped++
	}
}

type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     float64     `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string     `xml:"classname,attr"`
		Name    string     `xml:"name,attr"`
		Time    float64    `xml:"time,attr"`
		Failure *junitText `xml:"failure"`
		Skipped *junitSkip `xml:"skipped"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	junitSkip struct {
		Message string `xml:"message,attr"`
	}
)

// JUnit writes the report as the XML that build servers read.
func (r Report) JUnit(w io.Writer) error {
	suite := junitSuite{
		Name: "agentlab plugin " + r.Plugin, Tests: len(r.Results), Failures: r.Failed, Skipped: r.Skipped, Time: r.Seconds,
	}
	for _, one := range r.Results {
		c := junitCase{Class: r.Plugin, Name: Rule{ID: one.ID, Kind: one.Kind}.Name(), Time: one.Seconds}
		switch one.State {
		case Failed:
			c.Failure = &junitText{Message: one.Got, Text: fmt.Sprintf("got: %s\nexpected: %s\ncontract: %s", one.Got, one.Expected, one.Contract)}
		case Skipped:
			c.Skipped = &junitSkip{Message: one.Reason}
		}
		suite.Cases = append(suite.Cases, c)
	}
	out, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, out)
	return err
}
