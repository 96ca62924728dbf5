package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/agentlab/agentlab/core/api"
)

// fake is a daemon that answers from files: api/GET/v1/jobs/job_1.json is the
// answer to that request. Other endings: .404 and so on, a problem with this
// status; .sse, one event per line and then an open stream unless follow is false; .log, text with Go
// escapes, .logopen and then an open stream; .bytes, as it is; .hang, nothing. "@90s ago@" in a file is the time then. A request
// is noted in the file "requests"; one that has no file is answered 404.
type fake struct {
	dir    string
	socket string
	server *httptest.Server

	mu    sync.Mutex
	asked []string // mu guards: asked
}

func startFake(dir string) (*fake, error) {
	f := &fake{dir: dir, socket: filepath.Join(dir, "s")}
	ln, err := net.Listen("unix", f.socket)
	if err != nil {
		return nil, err
	}
	f.server = httptest.NewUnstartedServer(f)
	_ = f.server.Listener.Close()
	f.server.Listener = ln
	f.server.Start()
	return f, nil
}

func (f *fake) close() {
	f.server.CloseClientConnections()
	f.server.Close()
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.note(r)
	if strings.HasSuffix(r.URL.Path, "/stream") {
		f.stream(w, r)
		return
	}
	base := filepath.Join(f.dir, "api", r.Method, filepath.Clean(r.URL.Path))
	found, _ := filepath.Glob(base + ".[0-9hjslb]*")
	if isFile(base) {
		found = []string{base}
	}
	if len(found) == 0 {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"class":"not_found","detail":"no %s %s here","hint":"look elsewhere"}`, r.Method, r.URL.Path)
		return
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	f.answer(w, r, filepath.Ext(found[0]), ago(string(text)))
}

func (f *fake) note(r *http.Request) {
	var body string
	if r.URL.Path != "/v1/repos" {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
	} else if b, err := io.ReadAll(r.Body); err == nil {
		body = fmt.Sprintf("an archive: %v", bytes.Contains(b, []byte("repo.bundle")))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	line := strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + body)
	f.asked = append(f.asked, line)
	out, err := os.OpenFile(filepath.Join(f.dir, "requests"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(out, line)
		_ = out.Close()
	}
}

func (f *fake) answer(w http.ResponseWriter, r *http.Request, ext, text string) {
	switch ext {
	case ".sse":
		for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i+1, line)
		}
		_ = http.NewResponseController(w).Flush()
		if r.URL.Query().Get("follow") != "false" {
			<-r.Context().Done()
		}
	case ".log", ".logopen":
		w.Header().Set(api.LogOffsetHeader, "0")
		text = strings.TrimSuffix(text, "\n")
		plain, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(text, `"`, `\"`), "\n", `\n`) + `"`)
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(w, plain)
		_ = http.NewResponseController(w).Flush()
		if ext == ".logopen" {
			<-r.Context().Done()
		}
	case ".hang":
		<-r.Context().Done()
	case ".json", ".bytes":
		_, _ = io.WriteString(w, text)
	default:
		if status, err := strconv.Atoi(strings.TrimPrefix(ext, ".")); err == nil {
			w.WriteHeader(status)
		}
		_, _ = io.WriteString(w, text)
	}
}

// stream plays a guest's port: a greeting, then an echo.
func (f *fake) stream(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nport %s\n", api.StreamProtocol, r.URL.Query().Get("port"))
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

var agoPattern = regexp.MustCompile(`@(\w+) ago@`)

func ago(text string) string {
	return agoPattern.ReplaceAllStringFunc(text, func(m string) string {
		d, err := time.ParseDuration(agoPattern.FindStringSubmatch(m)[1])
		if err != nil {
			return m
		}
		return time.Now().Add(-d).UTC().Format(time.RFC3339)
	})
}

// cmdAsked waits until the daemon was asked something.
func cmdAsked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: asked text")
	}
	f, ok := ts.Value("fake").(*fake)
	if !ok {
		ts.Fatalf("asked: there is no fake daemon here")
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		f.mu.Lock()
		all := strings.Join(f.asked, "\n")
		f.mu.Unlock()
		if strings.Contains(all, args[0]) {
			return
		}
	}
	ts.Fatalf("nobody asked %q", args[0])
}

// cmdInterrupt starts a command line, sends it Ctrl-C once the daemon was asked
// something, and leaves its outputs in the files "out" and "err".
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: interrupt CODE text command [arg…]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, lookPath(ts, args[2]), args[3:]...)
	cmd.Env, cmd.Dir = childEnv(ts), ts.MkAbs(".")
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	f, _ := ts.Value("fake").(*fake)
	f.mu.Lock()
	f.asked = nil
	f.mu.Unlock()
	ts.Check(cmd.Start())
	cmdAsked(ts, false, args[1:2])
	ts.Check(cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("out"), stdout.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("err"), stderr.Bytes(), 0o600))
	ts.Logf("[out]\n%s[err]\n%s", &stdout, &stderr)
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func lookPath(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	ts.Fatalf("there is no %s in PATH", name)
	return ""
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func childEnv(ts *testscript.TestScript) (env []string) {
	for _, name := range []string{"PATH", "HOME", "TZ", "AGENTLAB_SOCKET", "TERM", "TMPDIR", "GORACE", "NO_COLOR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// places are directories that are others in each run.
var places = regexp.MustCompile(`(UserKnownHostsFile="|'|^)(/.*)(/known_hosts"|/agentlab'|/said$)`)

// percent is what ssh does to a ProxyCommand: only a doubled one stays.
var percent = strings.NewReplacer("%%", "%", "%", "EXPANDED")

// fakeSSH stands in for ssh: it prints its arguments and known hosts, runs the
// ProxyCommand as ssh would, says $SSH_SAYS in its own voice, and ends with
// $SSH_EXIT.
func fakeSSH() {
	for i, a := range os.Args[1:] {
		fmt.Printf("%d %q\n", i+1, places.ReplaceAllString(a, "$1$3"))
		if path, ok := strings.CutPrefix(a, "UserKnownHostsFile="); ok {
			path = strings.Trim(path, `"`)
			st, err := os.Stat(path)
			b, readErr := os.ReadFile(path)
			if err := errors.Join(err, readErr); err != nil {
				panic(err)
			}
			fmt.Printf("  %s %s", st.Mode(), b)
		}
		if command, ok := strings.CutPrefix(a, "ProxyCommand="); ok && command != "none" {
			if err := proxy(percent.Replace(command)); err != nil {
				panic(err)
			}
		}
	}
	if says := os.Getenv("SSH_SAYS"); says != "" && os.Args[1] == "-E" {
		if err := os.WriteFile(os.Args[2], []byte(says+"\r\n"), 0o600); err != nil {
			panic(err)
		}
	}
	code, _ := strconv.Atoi(os.Getenv("SSH_EXIT"))
	os.Exit(code)
}
