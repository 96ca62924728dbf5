package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"

	"github.com/agentlab/agentlab/bench/internal/record"
)

// Sizes of a picture, in units of its own.
const (
	width, height = 760, 400
	left, right   = 64, 20
	top, bottom   = 64, 56
)

// style is legible on white and on black: a picture shown as an image does not know
// on which it is, so it brings its own ground and follows what the reader prefers.
const style = `<style>
 svg { --ground: #ffffff; --ink: #1f2328; --faint: #d1d9e0; --soft: #59636e; --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #cf222e; --c5: #6e5800 }
 @media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --ink: #f0f6fc; --faint: #3d444d; --soft: #9198a1; --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #ff7b72; --c5: #e3b341 }
 }
 text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink) }
 .title { font-size: 16px; font-weight: 600 }
 .soft { fill: var(--soft) }
 .grid { stroke: var(--faint); stroke-width: 1 }
 .axis { stroke: var(--soft); stroke-width: 1 }
 .curve { fill: none; stroke-width: 2.5; stroke-linejoin: round }
</style>
`

// curve is a line through points, or a step curve of sorted samples.
type curve struct {
	name   string
	points [][2]float64
	dashed bool
}

// chart is a picture with two axes that begin at 0, or at 1 when the first is
// logarithmic.
type chart struct {
	title, x, y string
	logX        bool
	curves      []curve
}

// drawings gives the pictures that there is something for.
func drawings(f record.File) map[string][]byte {
	out := map[string][]byte{}
	start := f.Sets["start"].Series
	add := func(name string, c chart) {
		if len(c.curves) > 0 {
			out[name] = c.svg()
		}
	}
	add("start", chart{
		title: "From the request to the first command's output, from memory", x: "seconds", y: "share of the starts",
		curves: shares(start, [][3]string{
			{"exec", "over the channel"}, {"hand_exec", "the same by hand", "-"}, {"ssh", "over SSH"}, {"hand_ssh", "the same by hand", "-"},
		}),
	})
	all := map[string][]float64{
		"memory": start["exec"], "cold": start["cold"], "restore": f.Sets["libvirt"].Series["restore_exec"], "cloud": f.Sets["cloud"].Series["ssh"],
	}
	add("ways", chart{
		title: "The same on other ways", x: "seconds (each step is ten times more)", y: "share of the starts", logX: true,
		curves: shares(all, [][3]string{
			{"memory", "from memory"}, {"restore", "virsh restore"}, {"cold", "by a boot"}, {"cloud", "cloud image, cloud-init"},
		}),
	})
	burst := f.Sets["burst"]
	if times := slices.Sorted(slices.Values(burst.Series["exec"])); len(times) > 0 {
		up := curve{name: "sandboxes up"}
		for i, t := range times {
			up.points = append(up.points, [2]float64{t, float64(i)}, [2]float64{t, float64(i + 1)})
		}
		n := float64(len(times))
		add("burst", chart{
			title: fmt.Sprintf("%d sandboxes asked for at once", len(times)), x: "seconds since the request", y: "sandboxes with a first output",
			curves: []curve{up, {name: "as fast as the processors could", points: [][2]float64{{0, 0}, {n / burst.Values["bound"], n}}, dashed: true}},
		})
	}
	add("idle", chart{
		title: "Private memory of an idle sandbox of 512 MiB", x: "MiB", y: "share of the sandboxes",
		curves: shares(f.Sets["idle"].Series, [][3]string{
			{"private", "all of it"}, {"guest", "pages that the guest changed"}, {"translated", "translated code"}, {"rest", "QEMU's own"},
		}),
	})
	return out
}

// shares makes a curve of each series: which share of it is at most so large. Each
// has a name, what to call it, and "-" to be dashed.
func shares(series map[string][]float64, names [][3]string) []curve {
	var out []curve
	for _, n := range names {
		sorted := slices.Sorted(slices.Values(series[n[0]]))
		if len(sorted) == 0 {
			continue
		}
		c := curve{name: n[1], dashed: n[2] != ""}
		for i, v := range sorted {
			c.points = append(c.points, [2]float64{v, float64(i) / float64(len(sorted))}, [2]float64{v, float64(i+1) / float64(len(sorted))})
		}
		out = append(out, c)
	}
	return out
}

func (c chart) svg() []byte {
	var b bytes.Buffer
	rows := (len(c.curves) + 1) / 2
	head := top + 20*rows
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n%s", width, height+20*rows, html.EscapeString(c.title), style)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="6" style="fill: var(--ground)"/>`+"\n", width, height+20*rows)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="30">%s</text>`+"\n", left, html.EscapeString(c.title))
	c.legend(&b)
	at := c.axes(&b, head)
	for i, line := range c.curves {
		fmt.Fprintf(&b, `<polyline class="curve" style="stroke: var(--c%d)"%s points="`, i, dash(line))
		for _, p := range line.points {
			x, y := at(p[0], p[1])
			fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
		}
		b.WriteString("\"/>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func dash(c curve) string {
	if c.dashed {
		return ` stroke-dasharray="6 5"`
	}
	return ""
}

// legend puts two names in a row.
func (c chart) legend(b *bytes.Buffer) {
	for i, line := range c.curves {
		x, y := left+i%2*330, 54+i/2*20
		fmt.Fprintf(b, `<line class="curve" style="stroke: var(--c%d)"%s x1="%d" y1="%d" x2="%d" y2="%d"/>`, i, dash(line), x, y-4, x+34, y-4)
		label := line.name
		if n := len(line.points); n > 0 && line.points[n-1][1] == 1 {
			label += fmt.Sprintf(" (median %s)", figure(middle(line.points)))
		}
		fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", x+42, y, html.EscapeString(label))
	}
}

// middle is where a curve of shares passes a half.
func middle(points [][2]float64) float64 {
	var all []float64
	for i := 1; i < len(points); i += 2 {
		all = append(all, points[i][0])
	}
	return quantile(all, 0.5)
}

func figure(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// axes draws them and gives where a point lies.
func (c chart) axes(b *bytes.Buffer, head int) func(x, y float64) (px, py float64) {
	var maxX, maxY float64
	minX := math.Inf(1)
	for _, line := range c.curves {
		for _, p := range line.points {
			maxX, maxY, minX = max(maxX, p[0]), max(maxY, p[1]), min(minX, p[0])
		}
	}
	foot := float64(head + height - top - bottom)
	marksX, marksY := ticks(maxX), ticks(maxY)
	if c.logX {
		marksX = decades(minX, maxX)
	}
	share := func(x float64) float64 { return x / marksX[len(marksX)-1] }
	if c.logX {
		share = func(x float64) float64 {
			lo, hi := math.Log10(marksX[0]), math.Log10(marksX[len(marksX)-1])
			return (math.Log10(x) - lo) / (hi - lo)
		}
	}
	at := func(x, y float64) (px, py float64) {
		return left + share(x)*(width-left-right), foot - y/marksY[len(marksY)-1]*(foot-float64(head))
	}
	for _, v := range marksY {
		_, y := at(marksX[0], v)
		fmt.Fprintf(b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="soft" text-anchor="end" x="%d" y="%.1f">%s</text>`+"\n",
			left, y, width-right, y, left-8, y+4, strconv.FormatFloat(v, 'g', 4, 64))
	}
	for _, v := range marksX {
		x, _ := at(v, 0)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%.1f"/><text class="soft" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`+"\n",
			x, head, x, foot, x, foot+20, strconv.FormatFloat(v, 'g', 4, 64))
	}
	fmt.Fprintf(b, `<line class="axis" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", left, foot, width-right, foot)
	fmt.Fprintf(b, `<text text-anchor="middle" x="%d" y="%.1f">%s</text>`+"\n", (left+width-right)/2, foot+42, html.EscapeString(c.x))
	fmt.Fprintf(b, `<text text-anchor="middle" transform="translate(18 %.1f) rotate(-90)">%s</text>`+"\n", (float64(head)+foot)/2, html.EscapeString(c.y))
	return at
}

// ticks are round numbers from 0 to at least top.
func ticks(top float64) []float64 {
	if top <= 0 {
		top = 1
	}
	size := math.Pow(10, math.Floor(math.Log10(top)))
	step := size
	for _, part := range []float64{0.1, 0.2, 0.5, 1} {
		if top/(size*part) <= 8 {
			step = size * part
			break
		}
	}
	var out []float64
	for i := 0; ; i++ {
		v := math.Round(float64(i)*step*1e6) / 1e6
		out = append(out, v)
		if v >= top-step*1e-9 {
			return out
		}
	}
}

// decades are powers of ten around what is shown, and threefold of each.
func decades(from, to float64) []float64 {
	var out []float64
	for e := math.Floor(math.Log10(from)); ; e++ {
		for _, m := range []float64{1, 3} {
			v := m * math.Pow(10, e)
			if v*3.4 > from {
				out = append(out, v)
			}
			if v >= to && len(out) > 1 {
				return out
			}
		}
	}
}
