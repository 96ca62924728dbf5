package secret

// Finder looks for known values in what is written to it, however that is cut
// into pieces. It is not safe for concurrent use.
type Finder struct {
	r     *Redactor
	tail  []byte // the last bytes, in which a value may begin
	found bool
}

// Finder starts a search.
func (r *Redactor) Finder() *Finder { return &Finder{r: r} }

// Write takes a piece. It never fails.
func (f *Finder) Write(p []byte) (int, error) {
	if n := f.r.Longest(); n > 0 && !f.found {
		f.tail = append(f.tail, p...)
		f.found = f.r.Contains(f.tail)
		if keep := n - 1; len(f.tail) > keep {
			f.tail = append(f.tail[:0], f.tail[len(f.tail)-keep:]...)
		}
	}
	return len(p), nil
}

// Found reports whether a value was written.
func (f *Finder) Found() bool { return f.found }
