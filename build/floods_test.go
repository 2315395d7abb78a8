//go:build acceptance

package build_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pretag/build/testutil"
)

// A flood is an input that is small, or cheap to make, and asks for much time or memory.
type flood struct {
	name   string
	target string // package if it is ""
	file   string // the argument of inspect and unpack
	input  func(t *testing.T) []byte
	want   string // in the output
	good   bool   // the target succeeds
}

// Whatever the input, each target stays below a bound of memory, names the file or the
// helper, and leaves nothing incomplete. The log has what each took, sorted by the time.
// The tests of decompress, oci, sbom, pkgread and fetch have more such inputs.
func TestHostileInputs(t *testing.T) {
	p := compile(t)
	p.pairs = append(p.pairs, "HELPERS=alpine-x86_64", "FORMATS=deb", "ARCHIVE_COMPRESSION=none", "LOADERS="+standIns(t))
	const bound = 512 << 10 // kB
	type took struct {
		name   string
		cpu    time.Duration
		memory int64 // kB
	}
	var all []took
	for _, row := range slices.Concat(bombs(), crowds(), ociFloods(), databaseFloods(), packageFloods()) {
		t.Run(cmp.Or(row.target, "package")+"/"+row.name, func(t *testing.T) {
			target, named := cmp.Or(row.target, "package"), "alpine-x86_64"
			c, text := p.command(t, target)
			if row.file == "" {
				p.input(t, named, row.input(t))
			} else {
				named = row.file
				write(t, p.path(named), row.input(t))
				c.Args = append(c.Args, p.path(named))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			defer context.AfterFunc(ctx, func() { c.Process.Kill() })()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			used := memory(c.Process.Pid)
			_ = c.Wait() // the state has the result
			cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
			all = append(all, took{t.Name(), cpu, used})
			status := map[bool]int{true: 0, false: 1}[row.good]
			if c.ProcessState.ExitCode() != status || !strings.Contains(text.String(), row.want) || !strings.Contains(text.String(), named) {
				t.Errorf("status %d, want %d with %q and %q: %.2000s", c.ProcessState.ExitCode(), status, row.want, named, text)
			}
			if used > bound {
				t.Errorf("%d kB of memory, at most %d", used, bound)
			}
			p.clean(t)
			for name := range tree(t, p.path("out")) {
				// An archive is complete without the SBOM that could not be made.
				if !row.good && name != ".pretag" && !strings.HasPrefix(name, "helper-images/") {
					t.Errorf("left behind: %s", name)
				}
			}
			if err := os.RemoveAll(p.path("out")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(p.path("out"), 0o755); err != nil {
				t.Fatal(err)
			}
		})
	}
	slices.SortFunc(all, func(a, b took) int { return cmp.Compare(b.cpu, a.cpu) })
	var table strings.Builder
	peak := int64(0)
	for _, row := range all {
		peak = max(peak, row.memory)
		fmt.Fprintf(&table, "\n%6.2f s of CPU %4d MiB  %s", row.cpu.Seconds(), row.memory>>10, strings.TrimPrefix(row.name, t.Name()+"/"))
	}
	t.Logf("%d inputs, at most %d MiB:%s", len(all), peak>>10, &table)
}

// standIns returns a directory of files that take the place of loaders, which would take
// most of the time.
func standIns(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, goarch := range []string{"386", "amd64", "loong64"} {
		info := "path\tpretag/build/loader/gitlab-runner-helper-images\nmod\tpretag\t(devel)\t\n" +
			"build\t-trimpath=true\nbuild\tCGO_ENABLED=0\nbuild\tGOARCH=" + goarch + "\nbuild\tGOOS=linux\n"
		if err := os.WriteFile(filepath.Join(dir, "gitlab-runner-helper-images-"+goarch), testutil.GoProgram(t, runtime.Version(), info), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// memory waits for a process and returns its peak memory in kB. The Rusage would include
// this process: the kernel counts what a child shares with its parent before exec.
func memory(pid int) (highest int64) {
	for ; ; time.Sleep(5 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, line, found := strings.Cut(string(status), "VmHWM:")
		if err != nil || !found { // a zombie has no memory
			return highest
		}
		var now int64
		fmt.Sscan(line, &now)
		highest = max(highest, now)
	}
}

func fixed(b []byte) func(*testing.T) []byte { return func(*testing.T) []byte { return b } }

// bombs are streams that are decompressed to gigabytes, or that ask for a large history.
func bombs() []flood {
	zeros := make([]byte, 16<<20)
	filter := func(program string, args []string, plain func(t *testing.T) []byte) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return testutil.Filter(t, plain(t), program, args...) }
	}
	rootfs := func(t *testing.T) []byte { return testutil.Rootfs(t, "x") }
	file := func(size int64) func(*testing.T) []byte { // an open root filesystem, and the header of a file of zeros
		return func(t *testing.T) []byte {
			var b bytes.Buffer
			if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "usr/zeros", Mode: 0o644, Size: size}); err != nil {
				t.Fatal(err)
			}
			whole := testutil.Rootfs(t, "x")
			return append(whole[:len(whole)-1024], b.Bytes()...)
		}
	}
	layout := func(name string) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return layouts(t)[name] }
	}
	before := func(program string, args []string, head func(*testing.T) []byte) func(*testing.T) []byte { // 10 GB of zeros
		return func(t *testing.T) []byte {
			var b []byte
			if head != nil {
				b = testutil.Filter(t, head(t), program, args...)
			}
			return append(b, bytes.Repeat(testutil.Filter(t, zeros, program, args...), 640)...)
		}
	}
	const bomb = "times its size"
	stdout := []string{"-c"}
	return []flood{
		{name: "xz dictionary of 1.5 GiB", input: filter("xz", []string{"--lzma2=dict=1536MiB", "-c"}, rootfs), want: "more than 256 MiB of history"},
		// A frame without a content size, and an empty raw block (RFC 8878 3.1.1).
		{name: "zstd window of 2 GiB", input: fixed([]byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")), want: "more than 256 MiB of history"},
		{name: "zstd: 10 GB of zeros", input: before("zstd", stdout, nil), want: "no entries"},
		{name: "zstd: a file of 8 GB of zeros", input: before("zstd", stdout, file(8<<30-1<<20)), want: bomb},
		{name: "zstd: a file of 10 GB of zeros", input: before("zstd", stdout, file(10<<30)), want: "claim more than"},
		{name: "zstd: docker-archive with 10 GB of padding", input: before("zstd", stdout, layout("docker-archive")), want: bomb},
		{name: "zstd: oci-archive with 10 GB of padding", input: before("zstd", stdout, layout("oci-archive")), want: bomb},
		{name: "zstd: 10 GB of padding", input: before("zstd", stdout, rootfs), want: bomb},
		{name: "gzip: 10 GB of padding", input: before("gzip", stdout, rootfs), want: bomb},
	}
}

// crowds have more files, layers or members of the config than any image.
func crowds() []flood {
	docker := func(layers int, more string) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			rootfs, empty := testutil.Rootfs(t, "x"), make([]byte, 1024)
			diffIDs := []string{fmt.Sprintf(`"sha256:%x"`, sha256.Sum256(rootfs))}
			names := []string{`"layer.tar"`}
			for range layers - 1 {
				diffIDs = append(diffIDs, fmt.Sprintf(`"sha256:%x"`, sha256.Sum256(empty)))
				names = append(names, `"empty.tar"`)
			}
			config := fmt.Sprintf(`{"os":"linux","architecture":"amd64"%s,"rootfs":{"type":"layers","diff_ids":[%s]}}`, more, strings.Join(diffIDs, ","))
			return testutil.Tar(t, testutil.File("layer.tar", string(rootfs)), testutil.File("empty.tar", string(empty)), testutil.File("config.json", config),
				testutil.File("manifest.json", fmt.Sprintf(`[{"Config":"config.json","RepoTags":["a/b:c"],"Layers":[%s]}]`, strings.Join(names, ","))))
		}
	}
	files := func(head ...testutil.Entry) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			b := testutil.Tar(t, head...)
			return append(b[:len(b)-1024], tarOfNames(t, 300_000)...)
		}
	}
	zstd := func(input func(*testing.T) []byte) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return testutil.Compress(t, "zstd", input(t)) }
	}
	return []flood{
		{name: "300,000 files", input: zstd(files()), want: "more than 262144 paths"},
		{name: "docker-archive of 300,000 files, plain", input: files(testutil.File("manifest.json", "[]")), want: "more than 262144 entries"},
		{name: "1,000 layers", input: docker(1000, ""), want: "has 1000 layers, of which Docker's own store takes at most 125", good: true},
		{name: "10,000 layers", input: docker(10_000, ""), want: "10000 layers, want 1 to 1000"},
		{name: "a config of a million steps", input: docker(1, `,"history":[{}`+strings.Repeat(",{}", 1_380_000)+"]"), want: "config: 1380001 steps in the history, at most 10000 are allowed"},
		{name: "a config of 300,000 labels", input: docker(1, `,"config":{"Labels":{`+strings.Join(numbered(300_000, `"%x":""`), ",")+"}}"), good: true},
		{name: "a config of 5 MiB", input: docker(1, `,"x":"`+strings.Repeat("x", 5<<20)+`"`), want: "bytes, at most 4194304 are allowed"},
		{name: "a config of 4 MiB of brackets", input: docker(1, `,"x":`+strings.Repeat("[", 4_000_000)), want: "config: "},
	}
}

// numbered returns n texts with a number in each.
func numbered(n int, format string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return all
}

// tarOfNames returns a tar file of n empty files.
func tarOfNames(t *testing.T, n int) []byte {
	t.Helper()
	one := testutil.Tar(t, testutil.File("usr/0000000", ""))[:512]
	var b bytes.Buffer
	for i := range n {
		header := bytes.Clone(one)
		copy(header[4:], fmt.Sprintf("%07d", i))
		sum := 0
		for at, c := range header {
			if at >= 148 && at < 156 {
				c = ' '
			}
			sum += int(c)
		}
		copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(header)
	}
	return append(b.Bytes(), make([]byte, 1024)...)
}

// An ociLayout is an OCI layout in the making.
type ociLayout struct{ blobs []testutil.Entry }

// add adds a blob and returns its descriptor.
func (l *ociLayout) add(mediaType, body string) string {
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	l.blobs = append(l.blobs, testutil.File("blobs/sha256/"+digest, body))
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d}`, mediaType, digest, len(body))
}

// manifest adds the manifest of a small image, with a comment that makes it another one.
func (l *ociLayout) manifest(t *testing.T, comment string) string {
	rootfs := testutil.Rootfs(t, "x")
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(rootfs))
	body := fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s],"annotations":{"x":%q}}`,
		l.add("config.v1+json", config), l.add("layer.v1.tar", string(rootfs)), comment)
	return l.add("manifest.v1+json", body)
}

func index(entries ...string) string {
	return `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + "]}"
}

// archive returns the layout with that index as an oci-archive.
func (l *ociLayout) archive(t *testing.T, index string) []byte {
	entries := []testutil.Entry{testutil.File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), testutil.File("index.json", index)}
	seen := map[string]bool{}
	for _, blob := range l.blobs {
		if !seen[blob.Header.Name] {
			entries = append(entries, blob)
		}
		seen[blob.Header.Name] = true
	}
	return testutil.Tar(t, entries...)
}

// ociFloods are wide, deep and repeated indexes.
func ociFloods() []flood {
	nested := func(depth, width int) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			l := &ociLayout{}
			entry := l.manifest(t, "")
			for range depth - 1 {
				entry = l.add("index.v1+json", index(slices.Repeat([]string{entry}, width)...))
			}
			return l.archive(t, index(slices.Repeat([]string{entry}, width)...))
		}
	}
	many := func(n, size int) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			l := &ociLayout{}
			var entries []string
			for i := range n {
				entries = append(entries, l.manifest(t, fmt.Sprint(i, strings.Repeat("x", size))))
			}
			return l.archive(t, index(entries...))
		}
	}
	return []flood{
		{name: "indexes 4 deep of 2,000 equal entries each", input: nested(4, 2000), good: true},
		{name: "indexes 4 deep of 3,000 equal entries each", input: nested(4, 3000), want: "more than 10000 entries in all indexes together"},
		{name: "an index in 100 indexes", input: nested(100, 2), want: "more than 4 indexes in each other"},
		{name: "600 manifests", input: many(600, 0), want: "more than 500 manifests and configs have to be read"},
		{name: "20 manifests of 4 MiB", input: many(20, 4<<20-1000), want: "more than 67108864 bytes of manifests and configs have to be read"},
	}
}

// databaseFloods are package databases that are larger than those of the tests of sbom.
func databaseFloods() []flood {
	const (
		apk    = "lib/apk/db/installed"
		status = "var/lib/dpkg/status"
		one    = "Package: p\nVersion: 1\n"
		dep5   = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
	)
	image := func(files ...testutil.Entry) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return testutil.Rootfs(t, "x", files...) }
	}
	lines := func(n int, format string) string { return strings.Join(numbered(n, format), "") }
	return []flood{
		{name: "one copyright file for 5,000 packages", input: image(testutil.File(status, lines(5_000, "Package: p\nVersion: %d\n\n")), testutil.File("usr/share/doc/p/copyright", dep5+"\n"+strings.Repeat("Files: x\nLicense: ISC\n\n", 50_000))), good: true},
		{name: "a field of 4 million lines", input: image(testutil.File(status, one+"Description: x\n"+strings.Repeat(" y\n", 4_000_000))), good: true},
		{name: "5 million blank lines", input: image(testutil.File(status, one+strings.Repeat("\n", 5_000_000))), good: true},
		{name: "2 million diversions", input: image(testutil.File(status, one), testutil.File("var/lib/dpkg/diversions", strings.Repeat("/a\n/b\n:\n", 2_000_000))), want: "more than 10000 diversions"},
		{name: "a stanza of 10 million files", input: image(testutil.File(apk, "P:a\nV:1\nF:usr\n"+strings.Repeat("R:x\n", 10_000_000))), want: "too many steps"},
		{name: "an SBOM of 80 MB", input: image(testutil.File(apk, lines(4000, "P:%d\nV:1\nU:http://"+strings.Repeat("x", 20_000)+"\n\n"))), want: "SBOM of more than 67108864 bytes"},
		{name: "SQLite: damaged", input: image(testutil.File("var/lib/rpm/rpmdb.sqlite", "SQLite format 3\x00\x10\x00"+strings.Repeat("\x00", 8192))), want: "/var/lib/rpm/rpmdb.sqlite: page 1 has kind 0, want a page of a table"},
	}
}

// packageFloods are debs.
func packageFloods() []flood {
	deb := func(t *testing.T, control, data string, body []byte) []byte {
		b := []byte("!<arch>\n")
		for _, member := range []struct {
			name string
			body []byte
		}{{"debian-binary", []byte("2.0\n")}, {"control.tar", testutil.Tar(t, testutil.File("control", control))}, {data, body}} {
			b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", member.name, 0, 0, 0, 0o100644, len(member.body), member.body)
			b = append(b, make([]byte, len(member.body)&1)...)
		}
		return b
	}
	const control = "Package: a\nVersion: 1\nArchitecture: all\n"
	return []flood{
		{name: "deb: a control file of 4 million lines", target: "inspect", file: "x.deb", input: func(t *testing.T) []byte {
			return deb(t, control+"Description: x\n"+strings.Repeat(" y\n", 4_000_000), "data.tar", testutil.Tar(t, testutil.File("a", "")))
		}, want: "layout       deb", good: true},
		{name: "deb: a zstd bomb in a tarball", target: "unpack", file: "x.deb", input: func(t *testing.T) []byte {
			var b bytes.Buffer
			if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "prebuilt-alpine-x86_64.tar", Size: 8<<30 - 1, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			return deb(t, control, "data.tar.zst", append(testutil.Compress(t, "zstd", b.Bytes()), bytes.Repeat(testutil.Compress(t, "zstd", make([]byte, 16<<20)), 640)...))
		}, want: "times its size"},
	}
}
