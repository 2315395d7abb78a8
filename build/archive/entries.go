package archive

import (
	"archive/tar"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"pretag/build/internal/stricttar"
)

// Bounds of what a layer may claim; a helper image has some 10,000 entries.
const (
	maxNames = 64 << 20 // all names together, bytes
	maxName  = 4096     // one name, bytes (PATH_MAX of Linux, limits.h)
	maxPaths = 1 << 18  // of all layers, with the folders that they lead through
)

// An entryCheck looks at the tar entries of an image's layers and refuses what engines unpack wrongly, into foreign places or not at all.
type entryCheck struct {
	rootfs  bool
	machine elf.Machine
	all     map[string]bool // paths of the layers so far
	names   int             // bytes of names so far
	size    int64           // bytes that the files claim

	seen     map[string]kind // of the layer at hand
	programs int             // ELF files in program folders, of the right machine
	foreign  string          // one of another machine
}

// kind is what a path is in the layer at hand.
type kind byte

const (
	implied kind = iota + 1 // the folder of an entry, without an entry of its own
	directory
	file
	link // symbolic
)

func newEntryCheck(rootfs bool, goarch string) *entryCheck {
	return &entryCheck{rootfs: rootfs, machine: machines()[goarch], all: map[string]bool{}}
}

// machines gives the ELF machine of an architecture in Go's words.
func machines() map[string]elf.Machine {
	return map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64, "loong64": elf.EM_LOONGARCH,
		"ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
	}
}

// architecture is Go's word for an ELF machine, or ELF's where Go has none here.
func architecture(machine elf.Machine) string {
	for goarch, of := range machines() {
		if of == machine {
			return goarch
		}
	}
	return machine.String()
}

// layer reads one layer to its end.
func (c *entryCheck) layer(r io.Reader) error {
	c.seen = map[string]kind{}
	tr := stricttar.NewReader(r)
	for n := 0; ; n++ {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return errors.New("no entries")
			}
			break
		}
		if errors.Is(err, tar.ErrHeader) && n == 0 {
			return errors.New("not a tar file")
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", n+1, err)
		}
		if err := c.entry(header, tr); err != nil {
			return fmt.Errorf("entry %.200q: %w", header.Name, err)
		}
	}
	for name := range c.seen {
		c.all[name] = true
	}
	if c.rootfs && !c.all["usr"] && !c.all["etc"] && (c.all["oci-layout"] || c.all[manifestName]) {
		return errors.New("no root filesystem but an image archive in an unknown order; give it uncompressed")
	}
	if c.programs == 0 && c.foreign != "" {
		return fmt.Errorf("%s, want %s", c.foreign, architecture(c.machine))
	}
	return nil
}

func (c *entryCheck) entry(header *tar.Header, body io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader { // engines pass over it
		return nil
	}
	name, err := inside(header.Name)
	if err != nil {
		return err
	}
	if len(header.Linkname) > maxName {
		return fmt.Errorf("link of %d bytes, at most %d", len(header.Linkname), maxName)
	}
	if c.names += len(name) + len(header.Linkname); c.names > maxNames {
		return fmt.Errorf("names of more than %d bytes together", maxNames)
	}
	if c.size += header.Size; c.size > MaxLayer || c.size < 0 {
		return fmt.Errorf("the files claim more than %d bytes", int64(MaxLayer))
	}
	is := file
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeDir:
		is = directory
	case tar.TypeLink:
		err = c.hardLink(header.Linkname)
	case tar.TypeSymlink:
		is = link
		err = symlink(name, header.Linkname)
	case tar.TypeGNUSparse:
		err = errors.New("old GNU sparse file")
	default:
		err = fmt.Errorf("unknown type %q", header.Typeflag)
	}
	if err != nil {
		return err
	}
	if c.rootfs && strings.HasPrefix(path.Base(name), ".wh.") {
		return errors.New("whiteout in a root filesystem")
	}
	if err := c.place(name, is); err != nil {
		return err
	}
	if len(c.all)+len(c.seen) > maxPaths {
		return fmt.Errorf("more than %d paths", maxPaths)
	}
	if c.rootfs && c.machine != 0 && header.Typeflag == tar.TypeReg && header.Size > 0 && programFolder(path.Dir(name)) {
		return c.program(name, body)
	}
	return nil
}

// inside cleans a path and refuses one that leads out of the root.
func inside(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("empty name")
	case len(name) > maxName:
		return "", fmt.Errorf("name of %d bytes, at most %d", len(name), maxName)
	case strings.HasPrefix(name, "/"):
		return "", errors.New("absolute path")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("leads up by .. in its path")
		}
	}
	return path.Clean(name), nil
}

// place notes what name is. Each path stands once in a layer, and none leads
// through what is no folder.
func (c *entryCheck) place(name string, is kind) error {
	switch before := c.seen[name]; {
	case name == "." && is != directory:
		return errors.New("the root is no folder")
	case before == 0, before == implied && is == directory:
	case before == implied:
		return errors.New("entries before it lie in it, but it is no folder")
	default:
		return errors.New("stands twice in the layer")
	}
	c.seen[name] = is
	for end := strings.LastIndexByte(name, '/'); end >= 0; end = strings.LastIndexByte(name[:end], '/') {
		dir := name[:end]
		switch c.seen[dir] {
		case 0:
			c.seen[dir] = implied
		case implied, directory:
			return nil // what lies above was looked at before
		case link:
			return fmt.Errorf("leads through the symbolic link %q", dir)
		default:
			return fmt.Errorf("leads through %q, which is no folder", dir)
		}
	}
	return nil
}

// hardLink refuses a target that does not stand before its link in the layer.
// A lower layer's does not do: the overlay drivers unpack each layer by itself
// (podman 4.3.1 and Docker 20.10.24: "link /a /l: no such file or directory").
func (c *entryCheck) hardLink(target string) error {
	name, err := inside(target)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	if is := c.seen[name]; is != file && is != link {
		return fmt.Errorf("dangling hard link to %q", target)
	}
	return nil
}

// helperProgram is what GitLab Runner calls in a helper image
// (v15.8.0 and v19.3.0, dockerfiles/runner-helper).
const helperProgram = "usr/bin/gitlab-runner-helper"

// warning tells of what is odd in the image, but an engine takes.
func (c *entryCheck) warning() string {
	if !c.all[helperProgram] {
		return "has no /" + helperProgram + ", which GitLab Runner calls"
	}
	return ""
}

// symlink refuses a relative target that climbs out of the root. An absolute
// one is looked up in the root.
func symlink(name, target string) error {
	if target == "" {
		return errors.New("symbolic link to nothing")
	}
	if !path.IsAbs(target) && strings.HasPrefix(path.Join(path.Dir(name), target)+"/", "../") {
		return fmt.Errorf("symbolic link to %q leads out of the root", target)
	}
	return nil
}

// programFolder reports whether dir holds the programs that a helper starts with.
func programFolder(dir string) bool {
	switch dir {
	case ".", "bin", "sbin", "usr/bin", "usr/sbin":
		return true
	}
	return false
}

// program compares the machine of an ELF file with the image's. Foreign
// programs may stand beside right ones, but not alone.
func (c *entryCheck) program(name string, body io.Reader) error {
	var ident [20]byte // up to e_machine (ELF-64 object file format, "ELF header")
	if _, err := io.ReadFull(body, ident[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	}
	if string(ident[:4]) != elf.ELFMAG {
		return nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(ident[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	if machine := elf.Machine(order.Uint16(ident[18:])); machine != c.machine {
		c.foreign = fmt.Sprintf("%s is a program for %s", name, architecture(machine))
	} else {
		c.programs++
	}
	return nil
}
