package launch

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// maxFirstLine is how much of a script's first line the kernel reads.
const maxFirstLine = 255

// machines are those of ELF by what Go calls them.
var machines = map[string]elf.Machine{
	"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390,
}

// checkProgram says what exec would only call a format error: a program for
// another machine, a script whose interpreter is missing, or neither.
func checkProgram(f *os.File, path string) error {
	if isScript(f) {
		return checkScript(f, path)
	}
	var head [20]byte // up to e_machine
	if n, _ := f.ReadAt(head[:], 0); n < len(head) || string(head[:4]) != elf.ELFMAG {
		return fault.New(fault.Denied, "plugin binary %s is no program: neither an ELF file nor a script that begins with #!", path).
			WithHint("install it again; the copy may have been cut short")
	}
	found := elf.Machine(uint16(head[18]) | uint16(head[19])<<8)
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		found = elf.Machine(uint16(head[19]) | uint16(head[18])<<8)
	}
	if want, known := machines[runtime.GOARCH]; known && found != want {
		return fault.New(fault.Denied, "plugin binary %s is for another machine: for %s, and this is %s",
			path, machineName(found), machineName(want)).WithHint("install the one that is built for linux/%s", runtime.GOARCH)
	}
	return nil
}

func machineName(m elf.Machine) string { return strings.TrimPrefix(m.String(), "EM_") }

// checkScript looks at the interpreter as if it were the plugin, which it is.
func checkScript(f *os.File, path string) error {
	var head [maxFirstLine]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fault.New(fault.Denied, "read plugin binary: %w", err)
	}
	line, _, _ := bytes.Cut(head[2:n], []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return fault.New(fault.Denied, "plugin %s is a script without an interpreter after #!", path)
	}
	real, err := resolve(words[0])
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "plugin %s is a script for %s, which does not exist", path, words[0]).
			WithHint("install %s, or change the first line of the script", words[0])
	}
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return fault.New(fault.Denied, "interpreter of the plugin: %w", err)
	}
	return checkWriters(info, real)
}

// checkReach refuses a binary that the user of a confined plugin may not run.
func checkReach(f *os.File, g Grant) error {
	info, err := f.Stat()
	if err != nil {
		return fault.New(fault.Denied, "plugin binary: %w", err)
	}
	if g.Confined && g.UID != os.Geteuid() && info.Mode().Perm()&0o005 != 0o005 {
		return fault.New(fault.Denied, "plugin binary %s has mode %04o, and the plugin's own user cannot run it", f.Name(), info.Mode().Perm()).
			WithHint("chmod 755 %s", f.Name())
	}
	return nil
}

// isScript reports whether the kernel would start an interpreter for f.
func isScript(f *os.File) bool {
	var magic [2]byte
	n, _ := f.ReadAt(magic[:], 0)
	return n == 2 && string(magic[:]) == "#!"
}
