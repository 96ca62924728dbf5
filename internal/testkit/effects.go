package testkit

import (
	"fmt"
	"strings"

	"github.com/agentlab/agentlab/plugins/sim/world"
)

// WrongEffects names what of the world's log should not have happened: a broken
// rule, a thing made while it was there, removed while it was not, or not
// removed at all. What is off the network only waits for its end.
func WrongEffects(log []world.Effect) []string {
	var wrong []string
	made := map[string]int{}   // how often, by thing
	there := map[string]bool{} // now
	home := map[string]string{}
	shutIn := map[string]bool{} // sandboxes
	for _, e := range log {
		thing := e.Op[:3] + " " + e.Subject + " " + e.Owner
		say := func(what string) {
			wrong = append(wrong, fmt.Sprintf("effect %d %s %s %s: %s", e.Seq, e.Op, e.Subject, e.Owner, what))
		}
		if e.Broken != "" {
			say(e.Broken)
		}
		switch e.Op {
		case "vm.create", "network.attach":
			if there[thing] {
				say("made twice")
			}
			if at := home[e.Owner]; e.Owner != "" && at != "" {
				say("its owner has VM " + at + " already")
			}
			there[thing], home[e.Owner] = true, e.Subject
			made[thing]++
		case "vm.destroy", "network.detach":
			if !there[thing] {
				say("removed twice")
			}
			there[thing], home[e.Owner] = false, ""
		case "vm.discard": // a create that failed took its half back: it did not happen
			there[thing], home[e.Owner] = false, ""
			made[thing]--
		}
		if e.Op == "network.detach" {
			shutIn[e.Subject] = true
		}
		_, sandbox, _ := strings.Cut(e.Owner, "/")
		if shutIn[sandbox] && e.Op != "vm.destroy" && e.Op != "vm.discard" {
			say("its sandbox is off the network already")
		}
	}
	for thing, n := range made {
		if n > 1 || there[thing] {
			wrong = append(wrong, fmt.Sprintf("%s: made %d times, still there: %v", thing, n, there[thing]))
		}
	}
	return wrong
}
