package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/sdk/fault"
)

// devDir is the default of --dev-dir.
const devDir = "/var/lib/agentlab-dev"

// devConfig is the file in --dev-dir that is written at each start.
const devConfig = "config.hcl"

// insideEnv tells the second run of a --dev daemon that it is in its namespace.
const insideEnv = "AGENTLAB_DEV_INSIDE=1"

type devOptions struct {
	on, stop   bool
	unlessUsed bool
	dir        string
	runDir     string
	template   string
	plugins    string
}

func (o devOptions) pluginCopies() string { return filepath.Join(o.dir, "plugins") }
func (o devOptions) pin() string          { return filepath.Join(o.runDir, "netns") }

// prepareDev makes what is missing under the directory and enters the
// namespace. It returns the configuration's path, in the process that runs
// inside.
func prepareDev(o devOptions) (string, error) {
	conf := filepath.Join(o.dir, devConfig)
	if os.Getenv("AGENTLAB_DEV_INSIDE") == "1" {
		// It was run through a link called exe, and people signal it by its name.
		_ = os.WriteFile("/proc/self/comm", []byte("agentlabd"), 0)
		return conf, os.Unsetenv("AGENTLAB_DEV_INSIDE")
	}
	if os.Geteuid() != 0 {
		return "", fault.New(fault.Denied, "it makes a network namespace and starts VMs, which needs root").
			WithHint("run it with sudo, or use make demo, which does")
	}
	if err := o.absolute(); err != nil {
		return "", err
	}
	if err := o.checkTemplate(); err != nil {
		return "", err
	}
	if err := o.checkFree(); err != nil {
		return "", err
	}
	if err := makeDirs(o); err != nil {
		return "", err
	}
	if err := makeKeys(o); err != nil {
		return "", err
	}
	if err := copyPlugins(o); err != nil {
		return "", err
	}
	if err := writeDevConfig(o, conf); err != nil {
		return "", err
	}
	return "", execInNamespace(o.pin(), os.Args, append(os.Environ(), insideEnv))
}

func (o *devOptions) absolute() error {
	exe, err := os.Executable()
	if err != nil {
		return fault.New(fault.Internal, "find the own binary: %w", err)
	}
	if o.plugins == "" {
		o.plugins = filepath.Dir(exe)
	}
	for _, p := range []*string{&o.dir, &o.runDir, &o.plugins, &o.template} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return fault.New(fault.Invalid, "make %s absolute: %w", *p, err)
		}
	}
	return nil
}

// checkTemplate refuses a folder that the qemu plugin could only skip: the daemon
// would look ready, and no job would find its template.
func (o devOptions) checkTemplate() error {
	if o.template == "" {
		return nil
	}
	how := "name the folder that scripts/image.sh prints, or leave --template out to use the images under /var/cache/agentlab/images"
	st, err := os.Stat(o.template)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "--template: there is no %s", o.template).WithHint("%s", how)
	case err != nil:
		return fault.New(fault.Denied, "--template: %w", err).WithHint("%s", how)
	case !st.IsDir():
		return fault.New(fault.Invalid, "--template: %s is not a folder", o.template).WithHint("%s", how)
	}
	if _, err := os.Stat(filepath.Join(o.template, "manifest.json")); err != nil {
		return fault.New(fault.Invalid, "--template: %s is not a template: it has no manifest.json", o.template).WithHint("%s", how)
	}
	return nil
}

func makeDirs(o devOptions) error {
	if err := errors.Join(claimDir(o.dir, o.runDir, "--dev-dir"), claimDir(o.runDir, o.dir, "--dev-run-dir")); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(o.dir, "profiles"), filepath.Join(o.dir, "keys"), filepath.Join(o.dir, "secrets"), o.pluginCopies()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fault.New(fault.Denied, "create %s: %w", dir, err)
		}
	}
	return nil
}

// copyPlugins gives root its own copies: a checkout belongs to its user, and
// what others may change is not started as a plugin.
func copyPlugins(o devOptions) error {
	binaries, err := filepath.Glob(filepath.Join(o.plugins, "agentlab-plugin-*"))
	if err != nil || len(binaries) == 0 {
		return fault.New(fault.NotFound, "no plugin binaries in %s", o.plugins).WithHint("run make build, or name their directory with --plugin-dir")
	}
	for _, path := range binaries {
		content, err := os.ReadFile(path)
		if err != nil {
			return fault.New(fault.Denied, "copy plugin: %w", err)
		}
		if err := writeFile(filepath.Join(o.pluginCopies(), filepath.Base(path)), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func makeKeys(o devOptions) error {
	keys := filepath.Join(o.dir, "keys")
	agePath := filepath.Join(keys, "age.key")
	if _, err := os.Stat(agePath); errors.Is(err, fs.ErrNotExist) {
		if err := makeBundle(agePath, filepath.Join(o.dir, "secrets", "default.age")); err != nil {
			return err
		}
	}
	sshPath := filepath.Join(keys, "id_ed25519")
	if _, err := os.Stat(sshPath); errors.Is(err, fs.ErrNotExist) {
		if err := makeSSHKey(sshPath); err != nil {
			return err
		}
	}
	uid, gid := invoker()
	if err := os.Chown(sshPath, uid, gid); err != nil {
		return fault.New(fault.Denied, "give the key to the user: %w", err)
	}
	return nil
}

// makeBundle writes an identity and a bundle with one made-up secret, so that a
// first job can show how secrets arrive and are kept out of its log.
func makeBundle(keyPath, bundlePath string) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return fault.New(fault.Internal, "make an age key: %w", err)
	}
	f, err := os.OpenFile(bundlePath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fault.New(fault.Denied, "create the bundle: %w", err)
	}
	defer func() { _ = f.Close() }()
	w, err := age.Encrypt(f, id.Recipient())
	if err != nil {
		return fault.New(fault.Internal, "encrypt the bundle: %w", err)
	}
	_, err = fmt.Fprintf(w, "version: 1\nenv:\n  AGENTLAB_DEMO_TOKEN: demo-%s\n", rand.Text())
	if err = errors.Join(err, w.Close(), f.Sync()); err != nil {
		return fault.New(fault.Internal, "write the bundle: %w", err)
	}
	return writeIfAbsent(keyPath, []byte(id.String()+"\n"), 0o600)
}

func makeSSHKey(path string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fault.New(fault.Internal, "make an SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "agentlab-dev")
	if err != nil {
		return fault.New(fault.Internal, "write an SSH key: %w", err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		return fault.New(fault.Internal, "write an SSH key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPublic))) + " agentlab-dev\n"
	if err := writeFile(path+".pub", []byte(line), 0o644); err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(block), 0o600)
}

// writeDevConfig renders the configuration at each start: the template's folder
// changes with its content. Profiles are the user's once they are there.
func writeDevConfig(o devOptions, path string) error {
	q := strconv.Quote
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by agentlabd --dev at each start.\n")
	for _, kv := range [][2]string{
		{"data_dir", filepath.Join(o.dir, "data")},
		{"run_dir", o.runDir},
		{"log_file", filepath.Join(o.dir, "agentlabd.log")},
		{"profiles_dir", filepath.Join(o.dir, "profiles")},
		{"plugin_dir", o.pluginCopies()},
		{"ssh_public_key_path", filepath.Join(o.dir, "keys", "id_ed25519.pub")},
		{"secrets_bundle", "default"},
	} {
		fmt.Fprintf(&b, "%s = %s\n", kv[0], q(kv[1]))
	}
	qemu := fmt.Sprintf("    uid_base = %d\n", devUIDBase(o.dir))
	if o.template != "" {
		qemu += fmt.Sprintf("    templates = [%s]\n", q(o.template))
	}
	fmt.Fprintf(&b, "\nplugin \"hypervisor\" \"qemu\" {\n  config {\n%s  }\n}\n", qemu)
	fmt.Fprintf(&b, "\nplugin \"network\" \"netfilter\" {}\n")
	fmt.Fprintf(&b, "\nplugin \"secrets\" \"secrets-age\" {\n  config {\n    identity   = %s\n    bundle_dir = %s\n  }\n}\n",
		q(filepath.Join(o.dir, "keys", "age.key")), q(filepath.Join(o.dir, "secrets")))
	if err := writeFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	return writeIfAbsent(filepath.Join(o.dir, "profiles", "dev.hcl"), []byte(devProfile), 0o644)
}

// devUIDBase keeps the users of a dev daemon's VMs apart from those of an
// installed one, whose base is the plugin's default, and mostly of other dev
// daemons. It is the same at each start.
func devUIDBase(dir string) uint32 {
	const (
		first = 1_910_000_000
		users = 3000 // of VMs and spares, by the plugin's defaults
		slots = 29_000
	)
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir))
	return first + h.Sum32()%slots*users
}

const devProfile = `profile "dev" {
  template = "debian-12"

  resources {
    cores     = 2
    memory_mb = 1024
  }

  network {
    # A dev daemon's network is a namespace without an uplink: whatever stands here,
    # a sandbox reaches the guest API of its host and nothing beyond.
    mode = "nat"
  }

  behavior {
    ttl_minutes_default = 30
  }
}
`

// invoker is the user on whose behalf root runs: sudo's caller, else root.
func invoker() (uid, gid int) {
	uid, err1 := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, err2 := strconv.Atoi(os.Getenv("SUDO_GID"))
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	return uid, gid
}

func writeIfAbsent(path string, content []byte, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return writeFile(path, content, mode)
}

// writeFile replaces path in one step, so that a crash leaves the old file or
// the new one.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return fault.New(fault.Denied, "write %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(tmp, mode), os.Rename(tmp, path)); err != nil {
		return fault.New(fault.Denied, "write %s: %w", path, err)
	}
	return nil
}
