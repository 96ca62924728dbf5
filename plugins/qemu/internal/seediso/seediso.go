package seediso

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	sector    = 2048
	maxFile   = 1 << 20
	rootAt    = 18 // after the system area and two descriptors
	firstFile = 19 // the root folder has one sector
)

// File is one document. Name is in lower case with letters, digits and '-'.
type File struct {
	Name string
	Body []byte
}

// Labels of a volume.
const (
	Seed = "cidata"
	// Template: what boots with it is to become a memory template, and gets no
	// identity of its own.
	Template = "ALTEMPLATE"
)

// Bytes is the size of every image that needs no more. A guest remembers how
// large a disk is, and one that goes on from another's memory must find it so.
const Bytes = 1 << 20

// MaxBytes is more than any image of Render's has.
const MaxBytes = Bytes + 3*maxFile

// Render gives the image. Names are stored in lower case with version 1, which
// Linux shows without it. The same documents make the same image. fault.Invalid when a document exceeds 1 MiB.
func Render(label string, files []File) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	next := uint32(firstFile)
	root := slices.Concat(entry("\x00", rootAt, sector, true), entry("\x01", rootAt, sector, true))
	var content bytes.Buffer
	for _, f := range files {
		if len(f.Body) > maxFile {
			return nil, fault.New(fault.Invalid, "seed document %s exceeds %d bytes", f.Name, maxFile)
		}
		root = append(root, entry(f.Name+";1", next, uint32(len(f.Body)), false)...)
		content.Write(f.Body)
		content.Write(make([]byte, padding(len(f.Body))))
		next += uint32((len(f.Body) + sector - 1) / sector)
	}
	if len(root) > sector {
		return nil, fault.New(fault.Invalid, "seed has too many documents")
	}
	out := make([]byte, rootAt*sector, int(next)*sector)
	copy(out[16*sector:], primary(label, next))
	copy(out[17*sector:], "\xffCD001\x01")
	out = append(out, root...)
	out = append(out, make([]byte, padding(len(root)))...)
	out = append(out, content.Bytes()...)
	return append(out, make([]byte, max(0, Bytes-len(out)))...), nil
}

// Parse gives back what Render was given. fault.Invalid for anything else.
func Parse(image []byte) ([]File, error) {
	invalid := fault.New(fault.Invalid, "seed is damaged")
	if len(image) < firstFile*sector {
		return nil, invalid
	}
	var out []File
	for dir := image[rootAt*sector : firstFile*sector]; dir[0] != 0; dir = dir[dir[0]:] {
		size := int(dir[0])
		if size < 34 || size >= len(dir) || 33+int(dir[32]) > size {
			return nil, invalid
		}
		at, length := uint64(binary.LittleEndian.Uint32(dir[2:]))*sector, uint64(binary.LittleEndian.Uint32(dir[10:]))
		name, isFile := strings.CutSuffix(string(dir[33:33+dir[32]]), ";1")
		if !isFile {
			continue
		}
		if at+length > uint64(len(image)) {
			return nil, invalid
		}
		out = append(out, File{Name: name, Body: image[at : at+length]})
	}
	return out, nil
}

func padding(n int) int { return (sector - n%sector) % sector }

// primary is the volume descriptor of ECMA-119 8.4; blocks is the image's size.
func primary(label string, blocks uint32) []byte {
	d := make([]byte, sector)
	copy(d, "\x01CD001\x01")
	copy(d[8:], strings.Repeat(" ", 64))
	copy(d[8:], "LINUX")
	copy(d[40:], label)
	both32(d[80:], blocks)
	both16(d[120:], 1)
	both16(d[124:], 1)
	both16(d[128:], sector)
	// A path table is asked for by the standard and read by nobody here: size 0.
	copy(d[156:], entry("\x00", rootAt, sector, true))
	copy(d[190:], strings.Repeat(" ", 623))
	stamp := "20000101000000" + "00\x00"
	for _, at := range []int{813, 830, 864} {
		copy(d[at:], stamp)
	}
	copy(d[847:], strings.Repeat("0", 16))
	d[881] = 1
	return d
}

// entry is a folder record of ECMA-119 9.1.
func entry(name string, at, size uint32, folder bool) []byte {
	n := 33 + len(name)
	d := make([]byte, n+n%2)
	d[0] = byte(len(d))
	both32(d[2:], at)
	both32(d[10:], size)
	copy(d[18:], []byte{100, 1, 1, 0, 0, 0, 0}) // the start of 2000
	if folder {
		d[25] = 2
	}
	both16(d[28:], 1)
	d[32] = byte(len(name))
	copy(d[33:], name)
	return d
}

func both32(d []byte, v uint32) {
	binary.LittleEndian.PutUint32(d, v)
	binary.BigEndian.PutUint32(d[4:], v)
}

func both16(d []byte, v uint16) {
	binary.LittleEndian.PutUint16(d, v)
	binary.BigEndian.PutUint16(d[2:], v)
}
