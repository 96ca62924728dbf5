package nft

import (
	"encoding/json"
	"testing"
)

// Whatever nft prints, reading it neither panics nor loses a rule silently.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"nftables":[{"table":{"family":"inet","name":"agentlab"}},{"chain":{"name":"c","type":"filter","hook":"input","prio":0,"policy":"accept"}},{"rule":{"chain":"c","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"a"}},{"accept":null}]}}]}`))
	f.Add([]byte(`{"nftables":[{"table":{"name":"t"}},{"map":{"name":"m","type":["a","b"],"map":"verdict","elem":[["k",{"goto":{"target":"c"}}],{"elem":{"val":{"concat":[1,"b"]}}}]}}]}`))
	f.Add([]byte(`{"nftables":[{"table":{"name":"t"}},{"set":{"name":"s","type":"x","elem":[{"prefix":{"addr":"1.2.3.0","len":24}},{"range":[1,2]},{"elem":{}}]}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := decode(text)
		if err != nil {
			return
		}
		rules := 0
		for _, c := range table.Chains {
			rules += len(c.Rules)
		}
		var l listing
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("read what is not JSON: %v", err)
		}
		for _, o := range l.Objects {
			if o.Rule != nil && o.Table == nil && o.Set == nil && o.Map == nil && o.Chain == nil {
				rules--
			}
		}
		if rules != 0 {
			t.Errorf("%d rules too many or few", rules)
		}
	})
}

// What is not known stays visible, so that it never equals a rule of ours.
func TestUnknownStatements(t *testing.T) {
	tests := map[string]string{
		`{"accept":null}`:             `accept`,
		`{"goto":{"target":"deny"}}`:  `goto deny`,
		`{"log":{"prefix":"x"}}`:      `{"log":{"prefix":"x"}}`,
		`{"accept":null,"drop":null}`: `{"accept":null,"drop":null}`,
		`"accept"`:                    `"accept"`,
		`{"match":{"op":"!=","left":{"meta":{"key":"oifname"}},"right":"vmbr1"}}`:                                                             `oifname != "vmbr1"`,
		`{"match":{"op":"==","left":{"meta":{"key":"ibrname"}},"right":"vmbr1"}}`:                                                             `meta ibrname "vmbr1"`,
		`{"match":{"op":"==","left":{"ct":{"key":"state","dir":"reply"}},"right":"new"}}`:                                                     `{"ct":{"key":"state","dir":"reply"}} new`,
		`{"match":{"op":"==","left":{"payload":{"base":"nh","offset":0,"len":8}},"right":1}}`:                                                 `{"payload":{"base":"nh","offset":0,"len":8}} 1`,
		`{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"set":[{"prefix":{"addr":"10.0.0.0","len":8}}]}}}`: `ip daddr { 10.0.0.0/8 }`,
	}
	for in, want := range tests {
		if got := statement([]byte(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
