package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/bench/internal/record"
)

// none stands where nothing was measured.
const none = "–"

func quantile(all []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// tables gives the text of each table of the page.
func tables(f record.File) map[string]string {
	return map[string]string{
		"machine": machineTable(f), "start": startTable(f), "burst": burstTable(f), "idle": idleTable(f),
	}
}

func machineTable(f record.File) string {
	var b strings.Builder
	b.WriteString("| | |\n|---|---|\n")
	for _, key := range []string{"date", "processor", "cores", "memory", "kvm", "system", "qemu", "go", "load"} {
		if v := f.Machine[key]; v != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", key, v)
		}
	}
	return b.String()
}

func startTable(f record.File) string {
	start, spare, lv, cloud := f.Sets["start"], f.Sets["spare"], f.Sets["libvirt"], f.Sets["cloud"]
	var b strings.Builder
	b.WriteString("| | n | p50 | p95 | |\n|---|--:|--:|--:|---|\n")
	row := func(what string, all []float64, note string) {
		if len(all) == 0 {
			fmt.Fprintf(&b, "| %s | 0 | %s | %s | %s |\n", what, none, none, note)
			return
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", what, len(all), seconds(quantile(all, 0.5)), seconds(quantile(all, 0.95)), note)
	}
	row("**from memory**, command over the guest's channel", start.Series["exec"], times(start.Series["exec"], start.Series["hand_exec"]))
	row("the same by hand", start.Series["hand_exec"], "baseline")
	row("**from memory**, command over SSH", start.Series["ssh"], times(start.Series["ssh"], start.Series["hand_ssh"]))
	row("the same by hand", start.Series["hand_ssh"], "baseline")
	row("**a spare waited**, command over the channel", spare.Series["exec"], times(spare.Series["exec"], start.Series["hand_exec"]))
	row("**a spare waited**, command over SSH", spare.Series["ssh"], times(spare.Series["ssh"], start.Series["hand_ssh"]))
	row("a spare waited: sandbox READY", spare.Series["ready"], "")
	row("from that output until the next spare waits", spare.Series["refill"], "")
	row("of the first: VM on, with its identity", start.Series["vm_on"], "")
	row("of the first: sandbox READY", start.Series["ready"], "")
	for _, name := range slices.Sorted(maps.Keys(start.Series)) {
		if step, ok := strings.CutPrefix(name, "step "); ok {
			row("of the first: step "+step, start.Series[name], "")
		}
	}
	row("by a boot, command over the channel", start.Series["cold"], times(start.Series["cold"], start.Series["exec"], "from memory"))
	row("`virsh restore`, command over the channel", lv.Series["restore_exec"], lv.Skipped+times(lv.Series["restore_exec"], start.Series["exec"], "from memory"))
	row("cloud image with cloud-init, command over SSH", cloud.Series["ssh"], cloud.Skipped+times(cloud.Series["ssh"], start.Series["ssh"], "from memory"))
	return b.String()
}

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }

// times is the ratio of two medians.
func times(all, baseline []float64, of ...string) string {
	if len(all) == 0 || len(baseline) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f × %s", quantile(all, 0.5)/quantile(baseline, 0.5), strings.Join(append(of, "by hand")[:1], ""))
}

func burstTable(f record.File) string {
	s := f.Sets["burst"]
	if len(s.Series["exec"]) == 0 {
		return strings.TrimSpace("Not measured. "+s.Skipped) + "\n"
	}
	return fmt.Sprintf(`| | |
|---|--:|
| sandboxes asked for at once | %.0f |
| of them up, from memory | %d |
| starts per second | %.2f |
| cores ÷ CPU-seconds of one start alone (%.2f s) | %.2f per second |
| ratio | %.2f |
| first command's output, p50 and last | %s, %s |

![Sandboxes up over time](performance/burst.svg)
`, s.Values["n"], len(s.Series["exec"]), s.Values["rate"], quantile(s.Series["cpu_alone"], 0.5), s.Values["bound"],
		s.Values["rate"]/s.Values["bound"], seconds(quantile(s.Series["exec"], 0.5)), seconds(quantile(s.Series["exec"], 1)))
}

func idleTable(f record.File) string {
	s := f.Sets["idle"]
	if len(s.Series["private"]) == 0 {
		return strings.TrimSpace("Not measured. "+s.Skipped) + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| %d sandboxes of 512 MiB | p50 | largest |\n|---|--:|--:|\n", len(s.Series["private"]))
	for _, row := range [][2]string{
		{"private", "private memory of a QEMU"},
		{"guest", "of that: pages that its guest changed"},
		{"translated", "of that: translated code"},
		{"rest", "of that: QEMU's own"},
	} {
		all := s.Series[row[0]]
		fmt.Fprintf(&b, "| %s | %.0f MiB | %.0f MiB |\n", row[1], quantile(all, 0.5), quantile(all, 1))
	}
	fmt.Fprintf(&b, "| processor, of one core | %.2f %% | %.2f %% |\n", quantile(s.Series["cpu"], 0.5), quantile(s.Series["cpu"], 1))
	if spare := f.Sets["spare"].Series["private"]; len(spare) > 0 {
		fmt.Fprintf(&b, "| private memory of a spare that waits | %.0f MiB | %.0f MiB |\n", quantile(spare, 0.5), quantile(spare, 1))
	}
	b.WriteString("\n![Distribution of private memory](performance/idle.svg)\n")
	return b.String()
}
