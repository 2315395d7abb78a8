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

// TestHTMLInABrowser renders the page at desk and phone width, light and dark,
// and looks: nothing wider than the screen, and colours as the scheme asks. With
// KEEP_SHOTS set to a new folder the pictures are kept there, for a person to look at.
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
