package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/bench/internal/record"
)

// Sizes of a picture, in units of its own.
const (
	width, height = 760, 400
	left, right   = 64, 20
	top, bottom   = 64, 56
)

// roles are the colours, legible on white and on black. A picture shown as an image
// does not know on which it is, so it brings its own ground and follows what the reader
// prefers; programs that know no style sheets show the light ones.
var roles = []struct{ name, attribute, light, dark string }{
	{"ground", "fill", "#ffffff", "#0d1117"},
	{"ink", "fill", "#1f2328", "#f0f6fc"},
	{"soft", "fill", "#59636e", "#9198a1"},
	{"grid", "stroke", "#d1d9e0", "#3d444d"},
	{"c0", "stroke", "#0969da", "#58a6ff"},
	{"c1", "stroke", "#bc4c00", "#f0883e"},
	{"c2", "stroke", "#1a7f37", "#3fb950"},
	{"c3", "stroke", "#8250df", "#bc8cff"},
}

// as paints an element in a role.
func as(role string) string {
	for _, r := range roles {
		if r.name == role && r.attribute == "fill" {
			return fmt.Sprintf(`class="%s" fill="%s" stroke="none"`, role, r.light)
		}
		if r.name == role {
			return fmt.Sprintf(`class="%s" stroke="%s"`, role, r.light)
		}
	}
	panic("no role " + role)
}

func style() string {
	var b strings.Builder
	b.WriteString("<style>@media (prefers-color-scheme: dark) {")
	for _, r := range roles {
		fmt.Fprintf(&b, " .%s { %s: %s }", r.name, r.attribute, r.dark)
	}
	return b.String() + " }</style>\n"
}

const font = `font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif" font-size="13"`

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
		title: "The same in other ways", x: "seconds, logarithmic", y: "share of the starts", logX: true,
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
	tall := height + 20*rows
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s" %s>`+"\n%s",
		width, tall, html.EscapeString(c.title), font, style())
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="6" %s/>`+"\n", width, tall, as("ground"))
	fmt.Fprintf(&b, `<text x="%d" y="30" font-size="16" font-weight="600" %s>%s</text>`+"\n", left, as("ink"), html.EscapeString(c.title))
	c.legend(&b)
	at := c.axes(&b, top+20*rows)
	for i, line := range c.curves {
		fmt.Fprintf(&b, `<polyline fill="none" stroke-linejoin="round" %s points="`, stroke(i, line))
		for _, p := range line.points {
			x, y := at(p[0], p[1])
			fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
		}
		b.WriteString("\"/>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func stroke(i int, c curve) string {
	s := `stroke-width="2.5" ` + as("c"+strconv.Itoa(i))
	if c.dashed {
		s += ` stroke-dasharray="6 5"`
	}
	return s
}

// legend puts two names in a row.
func (c chart) legend(b *bytes.Buffer) {
	for i, line := range c.curves {
		x, y := left+i%2*330, 54+i/2*20
		fmt.Fprintf(b, `<line %s x1="%d" y1="%d" x2="%d" y2="%d"/>`, stroke(i, line), x, y-4, x+34, y-4)
		label := line.name
		if n := len(line.points); n > 0 && line.points[n-1][1] == 1 {
			label += fmt.Sprintf(" (median %s)", figure(middle(line.points)))
		}
		fmt.Fprintf(b, `<text x="%d" y="%d" %s>%s</text>`+"\n", x+42, y, as("ink"), html.EscapeString(label))
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
	line := func(from, to [2]float64) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`, from[0], from[1], to[0], to[1], as("grid"))
	}
	label := func(x, y, v float64, anchor string) {
		fmt.Fprintf(b, `<text text-anchor="%s" x="%.1f" y="%.1f" %s>%s</text>`+"\n", anchor, x, y, as("soft"), strconv.FormatFloat(v, 'g', 4, 64))
	}
	for _, v := range marksY {
		_, y := at(marksX[0], v)
		line([2]float64{left, y}, [2]float64{width - right, y})
		label(left-8, y+4, v, "end")
	}
	for _, v := range marksX {
		x, _ := at(v, 0)
		line([2]float64{x, float64(head)}, [2]float64{x, foot})
		label(x, foot+20, v, "middle")
	}
	fmt.Fprintf(b, `<text text-anchor="middle" x="%d" y="%.1f" %s>%s</text>`+"\n", (left+width-right)/2, foot+42, as("ink"), html.EscapeString(c.x))
	fmt.Fprintf(b, `<text text-anchor="middle" transform="translate(18 %.1f) rotate(-90)" %s>%s</text>`+"\n", (float64(head)+foot)/2, as("ink"), html.EscapeString(c.y))
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
			v, _ := strconv.ParseFloat(fmt.Sprintf("%ge%g", m, e), 64) // 3 times 0.1 is not 0.3
			if v*3.4 > from {
				out = append(out, v)
			}
			if v >= to && len(out) > 1 {
				return out
			}
		}
	}
}
