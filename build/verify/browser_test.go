//go:build acceptance

package verify

import (
	"bytes"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pretag/build/testutil"
)

// TestHTMLInABrowser renders the page at the widths of a desktop and a phone, in
// the light and the dark scheme: nothing is wider than the screen, and the colors
// are those of the scheme. If KEEP_SHOTS names a new directory, the pictures are
// kept there for a person to look at.
func TestHTMLInABrowser(t *testing.T) {
	chromium := testutil.Tool(t, "chromium")
	dir := t.TempDir()
	if err := sample().Write(dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, Page))
	if err != nil {
		t.Fatal(err)
	}
	// The page reports its measures to the frame around it. A window cannot be made
	// as narrow as a phone, but a frame can.
	probe := `<script>addEventListener("load", () => parent.postMessage([
		innerWidth, document.documentElement.scrollWidth, document.querySelectorAll("#matrix tbody tr").length,
		getComputedStyle(document.body).backgroundColor
	].join(" "), "*"))</script></body>`
	probed := filepath.Join(dir, "probed.html")
	if err := os.WriteFile(probed, []byte(strings.Replace(string(page), "</body>", probe, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	widths := []int{1280, 390}
	body := `<body style="margin:0;white-space:nowrap">
		<script>addEventListener("message", e => document.body.setAttribute("data-" + e.data.split(" ")[0], e.data))</script>`
	for _, width := range widths {
		body += fmt.Sprintf(`<iframe src="file://%s" style="border:0;width:%dpx;height:2400px"></iframe>`, probed, width)
	}
	frames := filepath.Join(dir, "frames.html")
	if err := os.WriteFile(frames, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	for scheme, background := range map[string]string{"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 29)"} {
		t.Run(scheme, func(t *testing.T) {
			chrome := func(arg ...string) string {
				return browse(t, chromium, append(arg,
					fmt.Sprintf("--window-size=%d,2400", widths[0]+widths[1]),
					"--blink-settings=preferredColorScheme="+map[string]string{"dark": "0", "light": "1"}[scheme],
					"file://"+frames)...)
			}
			dom := chrome("--dump-dom", "--virtual-time-budget=2000")
			for _, width := range widths {
				if want := fmt.Sprintf(`data-%d="%[1]d %[1]d 3 %s"`, width, background); !strings.Contains(dom, want) {
					t.Errorf("width, needed width, helpers, background: want %s, got %q", want, regexp.MustCompile(`data-\d+="[^"]*"`).FindAllString(dom, -1))
				}
			}
			shot := filepath.Join(dir, scheme+".png")
			chrome("--screenshot=" + shot)
			assertDrawn(t, shot, 0, widths[0])
			assertDrawn(t, shot, widths[0], widths[0]+widths[1])
		})
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

// assertDrawn wants many colors in the columns from left to right of a picture.
func assertDrawn(t *testing.T, path string, left, right int) {
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
	colors := map[any]bool{}
	for y := 0; y < picture.Bounds().Dy(); y += 3 {
		for x := left; x < right; x++ {
			colors[picture.At(x, y)] = true
		}
	}
	if len(colors) < 20 {
		t.Errorf("%d colors in the picture", len(colors))
	}
}
