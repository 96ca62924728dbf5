package images

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeDebstrap notes its command line, makes a tree as mmdebstrap does, calls
// the hooks and packs it.
const fakeDebstrap = `
printf '%s\n' "$@" >"$NOTES/argv"
tree=$TMPDIR/tree
mkdir -p "$tree/etc/apt/apt.conf.d" "$tree/etc/apt/sources.list.d"
for arg; do case $arg in
--aptopt=*) opt=${arg#--aptopt=}
	if [ -f "$opt" ]; then stat -c %a "$opt" >"$NOTES/mode"; cat "$opt"; else echo "$opt;"; fi >>"$tree/etc/apt/apt.conf.d/99mmdebstrap" ;;
*.tar) tar=$arg ;;
esac; done
cat >"$tree/etc/apt/sources.list"
cp "$tree/etc/apt/sources.list" "$tree/etc/apt/sources.list.d/0000sources.list"
cp "$tree/etc/apt/apt.conf.d/99mmdebstrap" "$NOTES/conf"
for arg; do case $arg in
--customize-hook=*) sh -c "${arg#--customize-hook=}" exec "$tree" ;;
esac; done
tar -C "$tree" -cf "$tar" .
`

// The password of a proxy or of an apt source serves the build and stays out of
// what others can read: argv, and what is kept.
func TestPasswordsOfAptStayHere(t *testing.T) {
	notes := t.TempDir()
	t.Setenv("NOTES", notes)
	const password = "planted-password"
	path := programs(t, map[string]string{
		"mmdebstrap": fakeDebstrap,
		"apt-get":    `echo "Debian|bookworm|http://user:` + password + `@deb.example/debian/|bookworm|main"`,
		"apt-config": `echo 'Acquire::http::Proxy "http://user:` + password + `@proxy.example:3128";'; echo 'Acquire::cdrom "";'`,
	})
	runner := filepath.Join(t.TempDir(), "agent-runner")
	write(t, runner, "runner")
	cache := t.TempDir()
	dir := copied(t, map[string]string{"disk.sh": `cp "$2" "$3/root.qcow2"; echo 1 6.1 >"$3/facts"`})
	run(t, path, dir+"/images/build.sh", "--runner", runner, "--cache", cache)

	conf := read(t, notes+"/conf")
	if !strings.Contains(conf, `Acquire::http::Proxy "http://user:`+password) || strings.Contains(conf, "cdrom") {
		t.Errorf("the build is told %q", conf)
	}
	if argv := read(t, notes+"/argv"); strings.Contains(argv, password) {
		t.Errorf("argv:\n%s", argv)
	}
	if mode := read(t, notes+"/mode"); mode != "600\n" {
		t.Errorf("the file of options has mode %s", mode)
	}
	var tars int
	err := filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if strings.Contains(read(t, path), password) {
			t.Errorf("%s holds the password", path)
		}
		switch filepath.Ext(path) {
		case ".tar":
			tars++
			fallthrough
		case ".log":
			if st.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, st.Mode())
			}
		}
		return nil
	})
	if err != nil || tars != 1 {
		t.Errorf("%d package trees, %v", tars, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
