package archive

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"runtime/debug"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/catalogue"
)

// helperProgram is what GitLab Runner calls in a helper image
// (v15.8.0 and v19.3.0, dockerfiles/runner-helper).
const helperProgram = "/usr/bin/gitlab-runner-helper"

// A program is an executable file in ELF form.
type program struct {
	machine machine
	build   *debug.BuildInfo // that Go recorded in it; nil if there is none
}

// A machine is what an ELF file runs on (ELF-64 object file format, "ELF header").
type machine struct {
	elf.Machine
	elf.Class
	elf.Data
}

// machineOf returns the machine of an architecture in Go's words.
func machineOf(goarch string) machine {
	return map[string]machine{
		"amd64":   {elf.EM_X86_64, elf.ELFCLASS64, elf.ELFDATA2LSB},
		"arm":     {elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB},
		"arm64":   {elf.EM_AARCH64, elf.ELFCLASS64, elf.ELFDATA2LSB},
		"loong64": {elf.EM_LOONGARCH, elf.ELFCLASS64, elf.ELFDATA2LSB},
		"ppc64le": {elf.EM_PPC64, elf.ELFCLASS64, elf.ELFDATA2LSB},
		"riscv64": {elf.EM_RISCV, elf.ELFCLASS64, elf.ELFDATA2LSB},
		"s390x":   {elf.EM_S390, elf.ELFCLASS64, elf.ELFDATA2MSB},
	}[goarch]
}

// is reports whether programs for m run on other. A program that does not say
// its class is judged by the rest.
func (m machine) is(other machine) bool {
	return m.Machine == other.Machine && m.Data == other.Data && (m.Class == other.Class || m.Class == elf.ELFCLASSNONE)
}

// String returns Go's word for the machine, or ELF's words if there is none in the catalogue.
func (m machine) String() string {
	for _, goarch := range []string{"amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"} {
		if m.is(machineOf(goarch)) {
			return goarch
		}
	}
	return fmt.Sprintf("%s, %s, %s", m.Machine, m.Class, m.Data)
}

// readProgram reads a file and returns what program it is, or nil.
func readProgram(body io.Reader) (*program, error) {
	var head [20]byte // up to e_machine
	if _, err := io.ReadFull(body, head[:]); err != nil {
		if errors.Is(err, io.EOF) || err == io.ErrUnexpectedEOF { // the file's end, not the tar file's
			return nil, nil
		}
		return nil, err
	}
	if string(head[:4]) != elf.ELFMAG {
		return nil, nil
	}
	p := &program{machine: machine{Class: elf.Class(head[elf.EI_CLASS]), Data: elf.Data(head[elf.EI_DATA])}}
	var order binary.ByteOrder = binary.LittleEndian
	if p.machine.Data == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	p.machine.Machine = elf.Machine(order.Uint16(head[18:]))
	var err error
	p.build, err = findBuildInfo(io.MultiReader(bytes.NewReader(head[:]), body))
	return p, err
}

// Bounds on the build information in a program. That of GitLab Runner has some 30 kB.
const (
	maxGoVersion = 100
	maxBuildInfo = 1 << 20
)

// findBuildInfo looks for the information that Go records in a program, or
// returns nil. Package debug/buildinfo does the same but needs the whole file at
// hand. Go below 1.18 recorded it in a form that cannot be read from a stream
// (go1.26, debug/buildinfo/buildinfo.go).
func findBuildInfo(r io.Reader) (*debug.BuildInfo, error) {
	const (
		magic         = "\xff Go buildinf:"
		align         = 16
		header        = 32
		inlineStrings = 2
	)
	file := bufio.NewReaderSize(r, 128<<10)
	for {
		head, err := file.Peek(header + 1 + len("dev"))
		if err != nil {
			return nil, ignoreEOF(err)
		}
		version := head[header+1:] // after its length
		if bytes.HasPrefix(head, []byte(magic)) && head[15]&inlineStrings != 0 && head[header] <= maxGoVersion &&
			(bytes.HasPrefix(version, []byte("go")) || bytes.HasPrefix(version, []byte("dev"))) {
			_, _ = file.Discard(header) // was peeked at
			return readBuildInfo(file)
		}
		_, _ = file.Discard(align)
	}
}

// readBuildInfo reads Go's version and the build information, each with its
// length before it.
func readBuildInfo(file *bufio.Reader) (*debug.BuildInfo, error) {
	const marker = 16 // bytes around the information
	var texts [2]string
	for i, most := range []uint64{maxGoVersion, maxBuildInfo} {
		length, err := binary.ReadUvarint(file)
		if err != nil || length > most {
			return nil, ignoreEOF(err)
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(file, text); err != nil {
			return nil, ignoreEOF(err)
		}
		texts[i] = string(text)
	}
	if len(texts[1]) < 2*marker {
		return nil, nil
	}
	info, err := debug.ParseBuildInfo(texts[1][marker : len(texts[1])-marker])
	if err != nil {
		return nil, nil // not build information after all
	}
	return info, nil
}

// ignoreEOF returns nil at the end of a file in the tar file. The end of the tar
// file itself is another error, which is kept.
func ignoreEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// A Runner is the version of GitLab Runner that a helper program was built from.
type Runner struct {
	Version  string // 19.3.0; "" if it is unknown
	Revision string // git revision, 8 hex digits or more; "" if it is unknown
}

// linkerFlag matches the variables that GitLab Runner sets when it links
// (v15.8.0 and v17.9.0, Makefile, GO_LDFLAGS). Go records them except with -trimpath.
var linkerFlag = regexp.MustCompile(`gitlab-org/gitlab-runner/common\.(VERSION|REVISION)=([^\s"']+)`)

// releaseForm is the part of a version that GitLab Runner looks at
// (v19.3.0, helpers/container/helperimage/info.go).
var releaseForm = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+)`)

// runnerOf returns what the build information says about GitLab Runner.
func runnerOf(info *debug.BuildInfo) (r Runner) {
	if info == nil {
		return r
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			if strings.Contains(info.Main.Path+info.Path, "gitlab-runner") {
				r.Revision = cmp.Or(r.Revision, setting.Value)
			}
		case "-ldflags":
			for _, flag := range linkerFlag.FindAllStringSubmatch(setting.Value, -1) {
				if flag[1] == "VERSION" {
					r.Version = flag[2]
				} else {
					r.Revision = flag[2]
				}
			}
		}
	}
	if !releaseForm.MatchString(r.Version) {
		r.Version = "" // "dev", "development version"
	}
	if !revisionForm.MatchString(r.Revision) {
		r.Revision = "" // "HEAD"
	}
	return r
}

var revisionForm = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// differs reports how a helper program differs from the version that is asked
// for. What is unknown on either side is not compared.
func (r Runner) differs(want Runner) error {
	got, wanted := releaseForm.FindStringSubmatch(r.Version), releaseForm.FindStringSubmatch(want.Version)
	if got != nil && wanted != nil && got[1] != wanted[1] {
		return fmt.Errorf("%s is from GitLab Runner %s, RUNNER_VERSION is %s: the tarball is that of another version", helperProgram, r.Version, want.Version)
	}
	if known, ok := catalogue.KnownRevision(want.Version); r.Version == "" && ok && !strings.HasPrefix(r.Revision, known) {
		// The user may have built another revision, but not that of another release.
		if release := catalogue.ReleaseOf(r.Revision); release != "" {
			return fmt.Errorf("%s is from revision %s, which is GitLab Runner %s; RUNNER_VERSION is %s: the tarball is that of another version", helperProgram, r.Revision, release, want.Version)
		}
	}
	if r.Revision != "" && want.Revision != "" && !strings.HasPrefix(r.Revision, want.Revision) && !strings.HasPrefix(want.Revision, r.Revision) {
		return fmt.Errorf("%s is from revision %s of GitLab Runner, want %s: the tarball is that of another version", helperProgram, r.Revision, want.Revision)
	}
	return nil
}

// programDir reports whether dir holds the programs that a helper starts with.
func programDir(dir string) bool {
	switch dir {
	case "", "bin", "sbin", "usr/bin", "usr/sbin":
		return true
	}
	return false
}

// note counts the programs that are for the machine of the image. Programs for
// other machines may be next to them, but not alone.
func (c *entryCheck) note(n *Node) {
	p := n.File.program
	if p == nil || c.goarch == "" || !programDir(n.parent.Path()) {
		return
	}
	if p.machine.is(machineOf(c.goarch)) {
		c.right++
	} else {
		c.foreign = fmt.Sprintf("%s is a program for %s, want %s", n.Path(), p.machine, c.goarch)
	}
}

// maxDockerLayers is the most layers that Docker's own store takes
// (moby v28.5.2, layer/layer_store.go, maxLayerDepth).
const maxDockerLayers = 125

// examine checks the programs that a helper image needs, once all layers have
// been read. config may be nil.
func (c *entryCheck) examine(config *v1.ConfigFile, spec Spec) (Examination, error) {
	var found Examination
	if c.right == 0 && c.foreign != "" {
		return found, errors.New(c.foreign)
	}
	var missing []string
	helper, err := c.program(helperProgram)
	switch {
	case err != nil:
		return found, err
	case helper == nil:
		missing = append(missing, "has no "+helperProgram+", which GitLab Runner calls")
	case helper.program != nil:
		found.Runner = runnerOf(helper.program.build)
	}
	if err := found.Runner.differs(spec.Runner); err != nil {
		return found, err
	}
	if config != nil {
		for _, name := range entrypoint(config.Config.Entrypoint) {
			file, err := c.lookPath(name, config.Config)
			if err != nil {
				return found, err
			}
			if file == nil {
				missing = append(missing, fmt.Sprintf("has no %s, which its entrypoint starts", printable(name)))
			}
		}
	}
	if spec.Strict && len(missing) > 0 {
		return found, errors.New(strings.Join(missing, "; "))
	}
	found.Warnings = missing
	if c.tree.layer > maxDockerLayers {
		found.Warnings = append(found.Warnings, fmt.Sprintf("has %d layers, of which Docker's own store takes at most %d", c.tree.layer, maxDockerLayers))
	}
	return found, c.tree.Err()
}

// program returns the regular file at an absolute path, or nil. A program for another
// machine is an error.
func (c *entryCheck) program(name string) (*File, error) {
	n := c.tree.Lookup(name, true)
	if n == nil || n.File == nil {
		return nil, nil
	}
	p := n.File.program
	if p == nil || c.goarch == "" || p.machine.is(machineOf(c.goarch)) {
		return n.File, nil
	}
	through := ""
	if real := "/" + n.Path(); real != name {
		through = fmt.Sprintf(" (it is %s)", real)
	}
	return nil, fmt.Errorf("%s%s is a program for %s, want %s", name, through, p.machine, c.goarch)
}

// printable bounds and quotes a foreign name where that is needed.
func printable(name string) string {
	if quoted := fmt.Sprintf("%.200q", name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// entrypoint returns the programs that must be in an image with the entrypoint:
// the first word. dumb-init starts a second program, which the catalogue's own
// entrypoint names.
func entrypoint(words []string) []string {
	if len(words) == 0 {
		return nil
	}
	if len(words) == 2 && words[0] == "/usr/bin/dumb-init" && words[1] == "/entrypoint" {
		return words
	}
	return words[:1]
}

// defaultPath is the PATH of an image that sets none (moby v28.5.2, oci/defaults.go).
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath looks a program up as the engine's runtime does.
func (c *entryCheck) lookPath(name string, config v1.Config) (*File, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join("/", config.WorkingDir, name)
		}
		return c.program(name)
	}
	dirs := defaultPath
	for _, setting := range config.Env {
		if value, ok := strings.CutPrefix(setting, "PATH="); ok {
			dirs = value
		}
	}
	for dir := range strings.SplitSeq(dirs, ":") {
		if found, err := c.program(path.Join("/", dir, name)); err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}
