package verify

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/testutil"
)

// sample is a report in which everything that can happen has happened.
func sample() Report {
	r := Report{Schema: reportSchema, Version: "19.3.0"}
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	passed := func(helper string) []Result {
		var results []Result
		for _, c := range checks() {
			result := Result{Subject: helper, Check: c.Name, Status: Passed, Seconds: 0.25}
			if strings.HasPrefix(c.Name, jobCheck) {
				result.log = "\x1b[32;1mtrace of " + c.Name + "\x1b[0;m\n"
			}
			results = append(results, result)
		}
		return results
	}
	rootful := EngineResult{Kind: engine.PodmanRootful, Version: "4.3.1", Driver: "overlay", Seconds: 3.5}
	docker := EngineResult{Kind: engine.Docker, Version: "20.10.24+dfsg1", Driver: "overlay2", Seconds: 4}
	for n, helper := range []string{"alpine-x86_64", "alpine-arm", "ubuntu-x86_64-pwsh"} {
		f := release.Archive{
			Helper: helper, Name: "prebuilt-" + helper + ".docker.tar.zst", Size: int64(n+1) << 20, UnpackedSize: int64(n+1) << 22, Compression: "zstd:best",
			SHA256: strings.TrimPrefix(digest, "sha256:"), ImageID: digest, DiffIDs: []string{digest}, Platform: "linux/amd64",
			RepoTag: "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper:" + helper + "-v19.3.0",
			Input:   release.Input{Name: "prebuilt-" + helper + ".tar.xz", Layout: "rootfs"},
		}
		r.Archives = append(r.Archives, f)
		r.Disk = append(r.Disk, Result{Subject: "helper-images/" + f.Name, Check: "archive", Status: Passed})
		r.Packages = append(r.Packages, release.Package{
			File: "gitlab-runner-helper-images-" + helper + "_19.3.0-1_all.deb", Size: f.Size, SHA256: f.SHA256,
			Format: "deb", Name: "gitlab-runner-helper-images-" + helper, Version: "19.3.0-1", Arch: "all", Archives: []string{f.Name},
		})
		rootful.Results = append(rootful.Results, passed(helper)...)
		results := passed(helper)
		for i := range results {
			switch {
			case n == 0 && (results[i].Check == "load" || results[i].Check == "runner"):
				results[i].Status, results[i].Says = Refused, "Docker below 23.0 knows no zstd: archive/tar: invalid tar header"
			case n == 1 && results[i].Check == "run":
				results[i].Status, results[i].Says = Skipped, "the image is for linux/arm/v7, this machine is linux/amd64"
			case n == 2 && results[i].Check == "runner":
				results[i].judge([]string{`image ` + digest + ` is tagged ["a:b" "a:latest"], want ["a:b"]`})
				results[i].Repeat = "curl --unix-socket /var/run/docker.sock -T out/helper-images/" + f.Name + " http://engine/images/load"
			case n == 2 && results[i].Check == jobControl:
				results[i].judge([]string{"the runner reports success without the image"})
			case n == 2 && results[i].Check == jobCheck:
				results[i].Status, results[i].Says = Void, "the same job succeeds without the image"
			}
		}
		docker.Results = append(docker.Results, results...)
	}
	rootful.ProvedBy = map[string]map[string]string{"zstd": {"load": "alpine-x86_64", "runner": "alpine-arm", "pipe": "ubuntu-x86_64-pwsh"}}
	docker.ProvedBy = map[string]map[string]string{"zstd": {"load": "alpine-x86_64", "runner": "alpine-arm", "pipe": "ubuntu-x86_64-pwsh"}}
	r.Job.Version = "19.3.0"
	r.Engines = []EngineResult{rootful, {Kind: engine.PodmanRootless, NotChecked: "newuidmap is not installed"}, docker}
	return r
}

func TestTable(t *testing.T) {
	want := `HELPER              ON DISK  PODMAN-ROOTFUL 4.3.1  PODMAN-ROOTLESS  DOCKER 20.10.24+DFSG1
alpine-x86_64       ok       ok, job ok            not checked      pipe only, job ok
alpine-arm          ok       ok, job ok            not checked      pipe only, not run, job ok
ubuntu-x86_64-pwsh  ok       ok, job ok            not checked      FAILED: runner, job-control
pipe only: the engine takes the archive decompressed from a pipe, as the loader sends it, but not as a file; ARCHIVE_COMPRESSION=gzip is for such engines
not run: loaded and compared, but the image is for another architecture
podman-rootful: zstd archives: load passed (alpine-x86_64), pipe passed (ubuntu-x86_64-pwsh), runner passed (alpine-arm)
podman-rootless: not checked: newuidmap is not installed
docker: zstd archives: load refused (alpine-x86_64), pipe passed (ubuntu-x86_64-pwsh), runner passed (alpine-arm)
job: run by GitLab Runner 19.3.0

docker: ubuntu-x86_64-pwsh: runner FAILED
  image sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef is tagged ["a:b" "a:latest"], want ["a:b"]
  repeat: curl --unix-socket /var/run/docker.sock -T out/helper-images/prebuilt-ubuntu-x86_64-pwsh.docker.tar.zst http://engine/images/load

docker: ubuntu-x86_64-pwsh: job-control FAILED
  the runner reports success without the image
51 passed, 2 failed, 1 void, 2 refused as expected, 1 not checked; 2 engines, 1 not checked
`
	if diff := cmp.Diff(want, sample().Table()); diff != "" {
		t.Error(diff)
	}
}

// The error counts what failed, and does not repeat the table.
func TestErr(t *testing.T) {
	r := sample()
	testutil.WantError(t, r.Err(), "verify: 2 of 56 checks failed")
	r.Engines = r.Engines[:2]
	if err := r.Err(); err != nil {
		t.Errorf("got %v, want nil: an engine that is not checked is not a failure", err)
	}
}

func TestSummaryCountsEngines(t *testing.T) {
	one := EngineResult{Kind: "docker"}
	for want, engines := range map[string][]EngineResult{
		"0 passed, 0 failed; 0 engines": nil,
		"0 passed, 0 failed; 1 engine":  {one},
		"0 passed, 0 failed; 2 engines": {one, one},
		"1 passed, 1 failed, 1 void, 1 refused as expected, 1 not checked; 1 engine, 1 not checked": {
			{Results: []Result{{Status: Passed}, {Status: Failed}, {Status: Void}, {Status: Refused}, {Status: Skipped}}}, {NotChecked: "why"},
		},
	} {
		if got := (Report{Engines: engines}).Summary(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// All is there again in report.json, and the traces of jobs are next to it.
func TestWrite(t *testing.T) {
	out := t.TempDir()
	r := sample()
	if err := r.Write(out); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(out, "verify", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(content, &read); err != nil {
		t.Fatal(err)
	}
	r.Totals = r.Count()
	if diff := cmp.Diff(r, read, cmpopts.IgnoreUnexported(Result{})); diff != "" {
		t.Errorf("report.json: %s", diff)
	}
	if want := (Totals{Passed: 51, Refused: 2, Failed: 2, Void: 1, NotChecked: 1, Engines: 2, EnginesNotChecked: 1}); read.Totals != want {
		t.Errorf("totals are %+v, want %+v", read.Totals, want)
	}
	trace, err := os.ReadFile(filepath.Join(out, "verify", "jobs", "docker-alpine-arm-job-file.txt"))
	if err != nil || string(trace) != "trace of job-file\n" {
		t.Errorf("trace is %q, %v", trace, err)
	}
}

func TestJUnit(t *testing.T) {
	content, err := sample().junit()
	if err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(content, &suites); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range suites.Suites {
		names = append(names, fmt.Sprintf("%s: %d tests, %d failures, %d skipped, %d cases", s.Name, s.Tests, s.Failures, s.Skipped, len(s.Cases)))
	}
	want := []string{
		"on disk: 3 tests, 0 failures, 0 skipped, 3 cases",
		"podman-rootful 4.3.1: 27 tests, 0 failures, 0 skipped, 27 cases",
		"podman-rootless: 1 tests, 0 failures, 1 skipped, 1 cases",
		"docker 20.10.24+dfsg1: 27 tests, 3 failures, 1 skipped, 27 cases",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	failure := suites.Suites[3].Cases[19]
	if failure.Class != "ubuntu-x86_64-pwsh" || failure.Name != "runner" || failure.Failure == nil ||
		!strings.Contains(failure.Failure.Text, "want [\"a:b\"]\nrepeat: curl") {
		t.Errorf("failure is %+v", failure)
	}
	control := suites.Suites[3].Cases[25]
	if control.Name != jobControl || control.Failure == nil || control.Output != "trace of job-control\n" {
		t.Errorf("a failed job is %+v, want its trace", control)
	}
	if void := suites.Suites[3].Cases[24]; void.Failure == nil || void.Failure.Message != "void: the same job succeeds without the image" {
		t.Errorf("a void job is %+v", void)
	}
	if skipped := suites.Suites[2].Cases[0]; skipped.Skipped == nil || skipped.Skipped.Message != "newuidmap is not installed" {
		t.Errorf("absent engine is %+v", skipped)
	}
}

// The page needs nothing but the traces that it links to.
func TestHTMLNeedsNothingElse(t *testing.T) {
	out := t.TempDir()
	if err := sample().Write(out); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(out, Page))
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	for _, bad := range []string{"ZgotmplZ", "<script", "<link", "src=", "url(", "@import", "<no value>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1)
	for _, link := range links {
		if _, err := os.Stat(filepath.Join(out, "verify", link[1])); err != nil || !strings.HasPrefix(link[1], "jobs/") {
			t.Errorf("link to %s: %v", link[1], err)
		}
	}
	if len(links) != 3*3*2+1 { // jobs of three helpers in two engines, and the failed one once more
		t.Errorf("%d links", len(links))
	}
	for _, want := range []string{
		"newuidmap is not installed", "FAILED: runner, job-control", "pipe only", "To reproduce it", "http://engine/images/load",
		"sha256:0123456789abcdef", "_all.deb", "width: 33.33%", "zstd archives: load refused (alpine-x86_64), pipe passed (ubuntu-x86_64-pwsh), runner passed (alpine-arm)", "run by GitLab Runner 19.3.0",
		`class="void"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// What a job prints is shown as text.
func TestPrintable(t *testing.T) {
	if got, want := printable("\x1b[32;1mgreen\x1b[0;m\r\x1b]0;title\a\xff\tend\n"), "green\n]0;title?\tend\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
