package nft

import (
	"encoding/json"
	"strconv"
	"strings"
)

// statement spells one statement of a rule the way package ruleset does.
func statement(raw json.RawMessage) string {
	var s struct {
		Match *struct {
			Op          string
			Left, Right json.RawMessage
		}
		Vmap *struct{ Key, Data json.RawMessage }
		Goto *struct{ Target string }
		Jump *struct{ Target string }
		// Count is a limit of connections; Inv is "over".
		Count *struct {
			Val uint64
			Inv bool
		} `json:"ct count"`
	}
	var keys map[string]json.RawMessage
	if json.Unmarshal(raw, &keys) != nil || len(keys) != 1 || json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	switch {
	case s.Match != nil:
		left, right := expression(s.Match.Left), value(s.Match.Right)
		if namesInterface(left) && !strings.HasPrefix(right, "@") {
			right = strconv.Quote(right)
		}
		if s.Match.Op == "==" || s.Match.Op == "in" {
			return left + " " + right
		}
		return left + " " + s.Match.Op + " " + right
	case s.Vmap != nil:
		return expression(s.Vmap.Key) + " vmap " + value(s.Vmap.Data)
	case s.Goto != nil:
		return "goto " + s.Goto.Target
	case s.Jump != nil:
		return "jump " + s.Jump.Target
	case s.Count != nil && s.Count.Inv:
		return "ct count over " + strconv.FormatUint(s.Count.Val, 10)
	}
	for key, body := range keys {
		if string(body) == "null" {
			return key // accept, drop, masquerade
		}
	}
	return string(raw)
}

// namesInterface reports whether a selector's value is an interface name, which
// nft wants quoted.
func namesInterface(left string) bool {
	switch left {
	case "iifname", "oifname", "meta ibrname", "meta obrname":
		return true
	}
	return false
}

// expression spells the left side of a match.
func expression(raw json.RawMessage) string {
	var e struct {
		Meta    *struct{ Key string }
		CT      *struct{ Key, Dir string }
		Payload *struct{ Protocol, Field string }
		Concat  []json.RawMessage
		And     []json.RawMessage `json:"&"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return string(raw)
	}
	switch {
	case e.Meta != nil && (e.Meta.Key == "iifname" || e.Meta.Key == "oifname"):
		return e.Meta.Key
	case e.Meta != nil:
		return "meta " + e.Meta.Key
	case e.CT != nil && e.CT.Dir == "":
		return "ct " + e.CT.Key
	case e.Payload != nil && e.Payload.Field != "":
		return e.Payload.Protocol + " " + e.Payload.Field
	case e.Concat != nil:
		return join(e.Concat, " . ", expression)
	case len(e.And) == 2:
		return expression(e.And[0]) + " & " + value(e.And[1])
	}
	return string(raw)
}

// value spells the right side of a match or a set's element.
func value(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil {
		return number.String()
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		return "{ " + join(list, ", ", value) + " }"
	}
	var v struct {
		Set    []json.RawMessage
		Range  []json.RawMessage
		Prefix *struct {
			Addr string
			Len  int
		}
	}
	if json.Unmarshal(raw, &v) != nil {
		return string(raw)
	}
	switch {
	case v.Set != nil:
		return "{ " + join(v.Set, ", ", value) + " }"
	case len(v.Range) == 2:
		return value(v.Range[0]) + "-" + value(v.Range[1])
	case v.Prefix != nil:
		return v.Prefix.Addr + "/" + strconv.Itoa(v.Prefix.Len)
	}
	return string(raw)
}

func join(parts []json.RawMessage, between string, spell func(json.RawMessage) string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = spell(p)
	}
	return strings.Join(out, between)
}
