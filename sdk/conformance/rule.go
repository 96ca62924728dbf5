package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// Level says how much is asked of a plugin. Each includes those below it.
type Level int

// Protocol: it is a plugin that a host can start, ask, configure and end.
// Semantics: its calls do what the contract of its kind says. Resilience: also
// when it is killed, stopped, hurried or left without its tools.
const (
	LevelProtocol   Level = 1
	LevelSemantics  Level = 2
	LevelResilience Level = 3
)

// String is the level's name.
func (l Level) String() string {
	switch l {
	case LevelProtocol:
		return "protocol"
	case LevelSemantics:
		return "semantics"
	case LevelResilience:
		return "resilience"
	}
	return fmt.Sprintf("level %d", int(l))
}

// Rule is one rule of a contract, as the catalogue has it.
type Rule struct {
	ID      string      // stable: "hypervisor.create-twice"
	Kind    plugin.Kind // "": of every kind
	Level   Level
	Changes bool // to check it, things are made on the host, and removed again
	About   string
	// Contract is the sentence that a plugin breaks, word for word from proto/,
	// from the interface in Go, or from docs/vendor-guide.md.
	Contract string
}

// Check is a rule and what finds out whether it is kept.
type Check struct {
	Rule
	// Run answers nil when the rule is kept, an error that wraps ErrSkipped
	// when it does not apply here, and any other error when it is broken.
	Run func(ctx context.Context) error
}

// Name tells the check from those of other kinds.
func (r Rule) Name() string {
	if r.Kind == "" || strings.HasPrefix(r.ID, string(r.Kind)+".") {
		return r.ID
	}
	return r.ID + "/" + string(r.Kind)
}

// ruled is a rule and what checks it on the state of one check.
type ruled[S any] struct {
	Rule
	run func(S, context.Context) error
}

// reads is a rule that can be checked without changing anything.
func reads[S any](id string, level Level, about, contract string, run func(S, context.Context) error) ruled[S] {
	return ruled[S]{Rule{ID: id, Level: level, About: about, Contract: contract}, run}
}

// changes is a rule for whose sake things are made.
func changes[S any](id string, level Level, about, contract string, run func(S, context.Context) error) ruled[S] {
	r := reads(id, level, about, contract, run)
	r.Changes = true
	return r
}

// Catalogue lists every rule that plugins are checked by, of all kinds.
func Catalogue() []Rule {
	return slices.Concat(
		rulesOf("", protocolRules), rulesOf("", capabilityRules),
		rulesOf(plugin.Hypervisor, allHypervisorRules()), rulesOf(plugin.Network, networkRules),
		rulesOf(plugin.Secrets, secretsRules), rulesOf(plugin.Exposure, exposureRules),
		rulesOf("", endureRules), rulesOf(plugin.Hypervisor, machineCrashRules), rulesOf(plugin.Hypervisor, storageCrashRules), rulesOf(plugin.Network, portCrashRules),
	)
}

func rulesOf[S any](kind plugin.Kind, table []ruled[S]) (out []Rule) {
	for _, r := range table {
		r.Kind = kind
		out = append(out, r.Rule)
	}
	return out
}

// bind makes checks of a table; run gives the function its state.
func bind[S any](kind plugin.Kind, table []ruled[S], run func(ctx context.Context, r Rule, fn func(S, context.Context) error) error) (out []Check) {
	for _, r := range table {
		r.Kind = kind
		out = append(out, Check{r.Rule, func(ctx context.Context) error { return run(ctx, r.Rule, r.run) }})
	}
	return out
}
