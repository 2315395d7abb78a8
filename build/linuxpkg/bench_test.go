package linuxpkg_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"pretag/build/release"
	"pretag/build/testutil/archivetest"
)

// BenchmarkBuild makes packages of archives of 64 MB and reports the most
// memory that the process had, in multiples of the largest package. It must not
// grow with their number.
func BenchmarkBuild(b *testing.B) {
	const size = 64 << 20
	for _, format := range []string{release.RPM, release.Deb} {
		for _, helpers := range [][]string{sixHelpers()[:1], sixHelpers()} {
			b.Run(fmt.Sprint(format, "/", len(helpers)), func(b *testing.B) {
				dir := b.TempDir()
				opts := options(b, filepath.Join(dir, "out"))
				opts.Formats = []string{format}
				archives := archivetest.Archives(b, dir, helpers...)
				for i := range archives {
					archives[i] = fill(b, archives[i], size)
				}
				b.SetBytes(int64(len(helpers)) * size)
				debug.FreeOSMemory()
				if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // proc(5): resets VmHWM
					b.Skip(err)
				}
				for b.Loop() {
					build(b, opts, archives)
				}
				b.ReportMetric(float64(peak(b))/size, "peak/package")
			})
		}
	}
}

// fill makes the archive size bytes of noise.
func fill(tb testing.TB, f release.Archive, size int64) release.Archive {
	tb.Helper()
	data := make([]byte, size)
	noise := rand.NewChaCha8([32]byte{})
	if _, err := noise.Read(data); err != nil {
		tb.Fatal(err)
	}
	write(tb, f.Path, data)
	f.Size = size
	return f
}

// peak is the most memory that the process had since it was last cleared, in bytes.
func peak(tb testing.TB) int64 {
	tb.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	tb.Fatal("no VmHWM in /proc/self/status")
	return 0
}
