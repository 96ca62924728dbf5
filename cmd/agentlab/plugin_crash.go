package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// findCrash gives the report with this id, or the newest for "last".
func findCrash(p api.PluginInfo, id string) (api.Crash, error) {
	var ids []string
	for _, c := range p.Crashes {
		if id == "last" || c.ID == id {
			return c, nil
		}
		ids = append(ids, c.ID)
	}
	err := fault.New(fault.NotFound, "there is no crash report %q of %s %s", id, p.Kind, p.Name)
	if len(ids) == 0 {
		return api.Crash{}, err.WithHint("none is kept")
	}
	return api.Crash{}, err.WithHint("kept are: %s", strings.Join(ids, ", "))
}

func printCrashes(w io.Writer, list []api.Crash) {
	var rows [][]string
	for _, c := range list {
		rows = append(rows, []string{c.ID, timeText(&c.At), ranText(c.RanMS), c.Reason})
	}
	table(w, []string{"CRASH", "AT", "RAN", "REASON"}, rows)
	fmt.Fprintln(w, "(a report whole: --crash ID)")
}

func ranText(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return age(d)
}

func printCrash(w io.Writer, c api.Crash) {
	pid, memory := "", ""
	if c.PID > 0 {
		pid = strconv.Itoa(c.PID)
	}
	if c.MemoryBytes > 0 {
		memory = bytesText(c.MemoryBytes) + " at most"
	}
	fields(w, "crash", c.ID, "at", timeText(&c.At), "reason", c.Reason, "ran", ranText(c.RanMS), "version", c.Version, "pid", pid, "memory", memory)
	if len(c.Calls) > 0 {
		var rows [][]string
		for _, r := range c.Calls {
			took := time.Duration(r.TookUS) * time.Microsecond
			rows = append(rows, []string{r.At.Local().Format("15:04:05.000"), r.Method, took.String(), r.Outcome, r.Operation, r.Request})
		}
		fmt.Fprintln(w)
		table(w, []string{"AT", "CALL", "TOOK", "OUTCOME", "OPERATION", "REQUEST"}, rows)
	}
	if c.Output != "" {
		fmt.Fprintln(w, "\nlast output:")
		for line := range strings.Lines(c.Output) {
			fmt.Fprintln(w, "  "+oneLine(strings.TrimRight(line, "\r\n")))
		}
	}
}
