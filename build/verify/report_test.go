package verify

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/testutil"
)

// sample is a report in which everything that can happen has happened.
func sample() Report {
	r := Report{Version: "19.3.0"}
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	passed := func(helper string) []Result {
		var results []Result
		for _, c := range checks() {
			results = append(results, Result{Subject: helper, Check: c.Name, Status: Passed, Seconds: 0.25})
		}
		return results
	}
	rootful := EngineResult{Kind: engine.PodmanRootful, Version: "4.3.1", Driver: "overlay", Seconds: 3.5}
	docker := EngineResult{Kind: engine.Docker, Version: "20.10.24+dfsg1", Driver: "overlay2", Seconds: 4}
	for n, helper := range []string{"alpine-x86_64", "alpine-arm", "ubuntu-x86_64-pwsh"} {
		f := release.Archive{
			Helper: helper, Name: "prebuilt-" + helper + ".docker.tar.zst", Size: int64(n+1) << 20, UnpackedSize: int64(n+1) << 22,
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
			case n == 0 && i < 2:
				results[i].Status, results[i].Says = Refused, "Docker below 23.0 knows no zstd: archive/tar: invalid tar header"
			case n == 1 && results[i].Check == "run":
				results[i].Status, results[i].Says = Skipped, "the image is for linux/arm/v7, this machine is linux/amd64"
			case n == 2 && results[i].Check == "runner":
				results[i].judge([]string{`image ` + digest + ` is tagged ["a:b" "a:latest"], want ["a:b"]`})
				results[i].Repeat = "curl --unix-socket /var/run/docker.sock -T out/helper-images/" + f.Name + " http://engine/images/load"
			}
		}
		docker.Results = append(docker.Results, results...)
	}
	rootful.Controls = []Result{{Subject: "bare root filesystem", Check: "import", Status: Passed, Says: "it becomes a:latest"}, {Subject: "two tags", Check: "runner", Status: Passed, Says: "reported: <invalid> & 'odd' reference"}}
	r.Engines = []EngineResult{rootful, {Kind: engine.PodmanRootless, NotChecked: "newuidmap is not installed"}, docker}
	return r
}

func TestTable(t *testing.T) {
	want := `HELPER              ON DISK  PODMAN-ROOTFUL 4.3.1  PODMAN-ROOTLESS  DOCKER 20.10.24+DFSG1
alpine-x86_64       ok       ok                    not checked      pipe only
alpine-arm          ok       ok                    not checked      ok, not run
ubuntu-x86_64-pwsh  ok       ok                    not checked      FAILED: runner
controls                     fired                 not checked      not checked
pipe only: takes the archive from zstd -dc, as the loader does it, and not as a file; ARCHIVE_COMPRESSION=gzip is for such engines
not run: is loaded and compared, but not of this machine's architecture
fired: archives that are wrong on purpose were found out
podman-rootless: not checked: newuidmap is not installed

docker: ubuntu-x86_64-pwsh: runner FAILED
  image sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef is tagged ["a:b" "a:latest"], want ["a:b"]
  repeat: curl --unix-socket /var/run/docker.sock -T out/helper-images/prebuilt-ubuntu-x86_64-pwsh.docker.tar.zst http://engine/images/load
37 passed, 1 failed, 2 refused as expected, 1 not checked; 2 engines, 1 not checked
`
	if diff := cmp.Diff(want, sample().Table()); diff != "" {
		t.Error(diff)
	}
}

func TestErrNamesWhatFailed(t *testing.T) {
	r := sample()
	if err := r.Err(); err == nil || !strings.HasPrefix(err.Error(), "docker: ubuntu-x86_64-pwsh: runner: image sha256:") {
		t.Errorf("Err() = %v", err)
	}
	r.Engines = r.Engines[:2]
	if err := r.Err(); err != nil {
		t.Errorf("Err() = %v, want nil: an absent engine is no failure", err)
	}
}

// The table lists each problem; the error after it is no second list.
func TestErrIsShort(t *testing.T) {
	r := Report{Disk: []Result{{Subject: "manifest.json", Check: "files", Status: Failed, Problems: []string{"a is there", "b is there", "c is there", "d is there"}}}}
	if got, want := r.Err().Error(), "on disk: manifest.json: files: a is there; b is there; and 2 more"; got != want {
		t.Errorf("Err() = %s, want %s", got, want)
	}
	if table := r.Table(); !strings.Contains(table, "  d is there\n") {
		t.Errorf("the table lacks a problem:\n%s", table)
	}
	if len(r.Disk[0].Problems) != 4 {
		t.Error("the report has lost problems")
	}
}

func TestSummaryCountsEngines(t *testing.T) {
	one := EngineResult{Kind: "docker"}
	for want, engines := range map[string][]EngineResult{
		"0 passed, 0 failed; 0 engines": nil,
		"0 passed, 0 failed; 1 engine":  {one},
		"0 passed, 0 failed; 2 engines": {one, one},
	} {
		if got := (Report{Engines: engines}).Summary(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWrite(t *testing.T) {
	out := t.TempDir()
	paths, err := sample().Write(out)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"report.json", "junit.xml", "report.html"}
	for n, path := range paths {
		if path != filepath.Join(out, "verify", want[n]) {
			t.Errorf("path %s, want %s", path, want[n])
		}
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(content, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), read); diff != "" {
		t.Errorf("report.json: %s", diff)
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	if err := sample().writeJUnit(&b); err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(b.Bytes(), &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Tests != 42 || suites.Failures != 1 || suites.Skipped != 2 {
		t.Errorf("%d tests, %d failures, %d skipped; want 42, 1, 2", suites.Tests, suites.Failures, suites.Skipped)
	}
	var names []string
	for _, s := range suites.Suites {
		names = append(names, fmt.Sprintf("%s %d", s.Name, len(s.Cases)))
	}
	if diff := cmp.Diff([]string{"on disk 3", "podman-rootful 4.3.1 20", "podman-rootless 1", "docker 20.10.24+dfsg1 18"}, names); diff != "" {
		t.Error(diff)
	}
	failure := suites.Suites[3].Cases[13]
	if failure.Class != "ubuntu-x86_64-pwsh" || failure.Name != "runner" || failure.Failure == nil ||
		!strings.Contains(failure.Failure.Text, "want [\"a:b\"]\nrepeat: curl") {
		t.Errorf("failure is %+v", failure)
	}
	if skipped := suites.Suites[2].Cases[0]; skipped.Skipped == nil || skipped.Skipped.Message != "newuidmap is not installed" {
		t.Errorf("absent engine is %+v", skipped)
	}
}

func TestHTMLNeedsNothingElse(t *testing.T) {
	var b bytes.Buffer
	if err := sample().writeHTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"ZgotmplZ", "<script", "<link", "src=", "url(", "@import", "href=", "<no value>"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{
		"newuidmap is not installed", "FAILED: runner", "pipe only", "To see it again", "http://engine/images/load",
		"&lt;invalid&gt; &amp;", "sha256:0123456789abcdef", "_all.deb", "width: 33.33%", "it becomes a:latest",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestHTMLInABrowser renders the page at desk and phone width, light and dark,
// and looks: nothing wider than the screen, and colours as the scheme asks. With
// KEEP_SHOTS set to a new folder the pictures are kept there, for a person to look at.
func TestHTMLInABrowser(t *testing.T) {
	chromium := testutil.Tool(t, "chromium")
	dir := t.TempDir()
	paths, err := sample().Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(paths[2])
	if err != nil {
		t.Fatal(err)
	}
	// The page tells the frame around it what it measures. A window cannot be
	// made as narrow as a phone, a frame can.
	probe := `<script>addEventListener("load", () => parent.postMessage([
		innerWidth, document.documentElement.scrollWidth, document.querySelectorAll("#matrix tbody tr").length,
		getComputedStyle(document.body).backgroundColor
	].join(" "), "*"))</script></body>`
	probed := filepath.Join(dir, "probed.html")
	if err := os.WriteFile(probed, []byte(strings.Replace(string(page), "</body>", probe, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, width := range []int{1280, 390} {
		for scheme, background := range map[string]string{"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 29)"} {
			t.Run(fmt.Sprintf("%d-%s", width, scheme), func(t *testing.T) {
				frame := filepath.Join(dir, "frame.html")
				body := fmt.Sprintf(`<body style="margin:0">
					<script>addEventListener("message", e => document.body.setAttribute("data-probe", e.data))</script>
					<iframe src="file://%s" style="border:0;width:%dpx;height:2400px"></iframe>`, probed, width)
				if err := os.WriteFile(frame, []byte(body), 0o644); err != nil {
					t.Fatal(err)
				}
				chrome := func(arg ...string) string {
					return browse(t, chromium, append(arg,
						fmt.Sprintf("--window-size=%d,2400", max(width, 500)),
						"--blink-settings=preferredColorScheme="+map[string]string{"dark": "0", "light": "1"}[scheme],
						"file://"+frame)...)
				}
				got := regexp.MustCompile(`data-probe="([^"]*)"`).FindStringSubmatch(chrome("--dump-dom", "--virtual-time-budget=2000"))
				if want := fmt.Sprintf("%d %d 3 %s", width, width, background); len(got) != 2 || got[1] != want {
					t.Errorf("width, needed width, helpers, background: got %q, want %q", got, want)
				}
				shot := filepath.Join(dir, fmt.Sprintf("%d-%s.png", width, scheme))
				chrome("--screenshot=" + shot)
				assertDrawn(t, shot, width)
			})
		}
	}
	if keep, ok := os.LookupEnv("KEEP_SHOTS"); ok {
		if err := os.CopyFS(keep, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	}
}

func browse(t *testing.T, chromium string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), chromium, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--allow-file-access-from-files", "--user-data-dir=" + t.TempDir(),
	}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return string(out)
}

// assertDrawn wants a picture that is not of one colour.
func assertDrawn(t *testing.T, path string, width int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	colours := map[any]bool{}
	for y := 0; y < picture.Bounds().Dy(); y += 3 {
		for x := range width {
			colours[picture.At(x, y)] = true
		}
	}
	if len(colours) < 20 {
		t.Errorf("%d colours in the picture", len(colours))
	}
}
