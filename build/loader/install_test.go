//go:build acceptance

package loader_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pretag/packaging"

	"pretag/build/testutil"
)

// TestManual checks the manual page with mandoc.
func TestManual(t *testing.T) {
	mandoc := testutil.Tool(t, "mandoc")
	out, err := exec.Command(mandoc, "-T", "lint", "-W", "warning", "../../packaging/root/usr/share/man/man8/gitlab-runner-helper-images.8").CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestUnit checks the units with systemd, with the path of a program that exists.
func TestUnit(t *testing.T) {
	analyze := testutil.Tool(t, "systemd-analyze")
	script, err := filepath.Abs(loader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name, old, new string) string {
		text, err := os.ReadFile("../../packaging/root/usr/lib/systemd/system/" + name)
		if err == nil {
			here := strings.Replace(string(text), "/usr/bin/gitlab-runner-helper-images", script, 1)
			err = os.WriteFile(filepath.Join(dir, name), []byte(strings.Replace(here, old, new, 1)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	// The units of this machine may have faults, too.
	faults := func(name string) []string {
		out, _ := output(t, exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, name)))
		return slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return !strings.Contains(line, "gitlab-runner-helper-images.") })
	}
	for name, section := range map[string]string{unit: "[Service]", timer: "[Timer]"} {
		put(unit, "", "")
		put(name, section, section+"\nNoSuch=setting")
		if faults(name) == nil {
			testutil.Missing(t, "systemd-analyze", "it does not see a wrong setting here")
		}
		put(name, "", "")
		for _, line := range faults(name) {
			t.Error(line)
		}
	}
	text := put(unit, "", "")
	// systemd 239 (EL 8) refuses a oneshot with one of these.
	for _, setting := range []string{"Restart=", "RestartForceExitStatus=", "RemainAfterExit="} {
		if strings.Contains(text, "\n"+setting) {
			t.Errorf("the unit has %s", setting)
		}
	}
}

// TestScriptlets runs each scriptlet as its package manager would, with systemd
// running and without. systemctl is a script that writes down its
// arguments: a second systemd cannot run next to that of the machine.
func TestScriptlets(t *testing.T) {
	needRoot(t)
	testutil.Tool(t, "unshare")
	const (
		start      = "systemctl --no-block start gitlab-runner-helper-images.service\n"
		asks       = "systemctl --quiet is-enabled gitlab-runner-helper-images.service\n"
		asksTimer  = "systemctl --quiet is-enabled " + timer + "\n"
		startTimer = "systemctl --no-block start " + timer + "\n"
		reload     = "systemctl --system daemon-reload\n"
		preset     = "systemctl --no-reload preset gitlab-runner-helper-images.service\n"
		// What is on the host beforehand.
		hasUnit   = "touch /usr/lib/systemd/system/gitlab-runner-helper-images.service"
		hasPreset = "touch /var/lib/gitlab-runner-helper-images/preset"
	)
	for _, test := range []struct {
		script, argument string
		running, enabled bool
		before           string
		want             string
	}{
		{"deb/loader-postinstall.sh", "configure", true, true, hasUnit, reload + asks + start + asksTimer + startTimer},
		{"deb/loader-postinstall.sh", "configure", true, false, hasUnit, reload + asks + asksTimer},
		{"deb/loader-postinstall.sh", "configure", false, true, hasUnit, ""},
		{"deb/loader-postinstall.sh", "triggered", true, true, hasUnit, asks + start + asksTimer + startTimer},
		{"deb/loader-postinstall.sh", "triggered", false, true, hasUnit, ""},
		{"deb/loader-preremove.sh", "remove", true, true, hasUnit, stop + "\n"},
		{"deb/loader-preremove.sh", "upgrade", true, true, hasUnit, ""},
		{"deb/loader-preremove.sh", "remove", false, true, hasUnit, ""},
		{"deb/loader-postremove.sh", "remove", true, true, "", reload},
		{"deb/loader-postremove.sh", "purge", false, true, "", ""},
		{"deb/loader-postremove.sh", "purge", false, true, hasUnit, ""},
		{"rpm/helper-posttrans.sh", "1", true, true, hasUnit, asks + start},
		{"rpm/helper-posttrans.sh", "1", true, false, hasUnit, asks},
		{"rpm/helper-posttrans.sh", "1", false, true, hasUnit, ""},
		{"rpm/loader-postinstall.sh", "1", true, true, hasUnit, preset},
		{"rpm/loader-postinstall.sh", "1", false, true, hasUnit, preset},
		{"rpm/loader-postinstall.sh", "1", true, true, hasPreset, ""},
		{"rpm/loader-postinstall.sh", "2", true, true, hasUnit, ""},
		{"rpm/loader-posttrans.sh", "1", false, true, hasUnit, ""},
		{"rpm/loader-posttrans.sh", "1", true, true, hasPreset, "systemctl daemon-reload\n" + asks + start},
		{"rpm/loader-posttrans.sh", "2", false, true, hasPreset, ""},
		{"rpm/loader-postremove.sh", "0", true, true, "", stop + "\nsystemctl daemon-reload\n"},
		{"rpm/loader-postremove.sh", "1", true, true, "", stop + "\nsystemctl daemon-reload\n"},
		{"rpm/loader-postremove.sh", "0", false, true, "", ""},
		{"rpm/loader-postremove.sh", "0", true, true, hasUnit, ""},
		{"rpm/loader-postremove.sh", "1", true, true, hasUnit, ""},
	} {
		t.Run(test.script+" "+test.argument, func(t *testing.T) {
			text, err := packaging.Files.ReadFile("scriptlets/" + test.script)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			asked := filepath.Join(dir, "asked")
			// Every request but the one about being enabled fails: a scriptlet must not.
			systemctl := "#!/bin/sh\necho systemctl \"$@\" >>" + asked + "\ncase $* in *is-enabled*) exit " + map[bool]string{true: "0", false: "1"}[test.enabled] + " ;; esac\nexit 5\n"
			// deb-systemd-helper would change this machine.
			programs := map[string]string{"scriptlet": string(text), "systemctl": systemctl, "deb-systemd-helper": "#!/bin/sh\nexit 1\n"}
			for name, body := range programs {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			// Private directories, with or without the sign that systemd runs.
			prepare := "for at in /run /var/lib /etc/systemd/system /usr/lib/systemd/system; do mount -t tmpfs tmpfs $at || exit; done; mkdir /var/lib/gitlab-runner-helper-images"
			if test.running {
				prepare += " && mkdir -p /run/systemd/system"
			}
			if test.before != "" {
				prepare += " && " + test.before
			}
			state := "; code=$?; ls /var/lib >" + filepath.Join(dir, "state") + "; exit $code"
			cmd := exec.Command("unshare", "-m", "/bin/sh", "-c", prepare+" && "+filepath.Join(dir, "scriptlet")+" "+test.argument+state)
			cmd.Env = []string{"PATH=" + dir + ":/bin:/sbin"}
			if out, code := output(t, cmd); code != 0 {
				t.Fatalf("exit %d: %s", code, out)
			}
			got, err := os.ReadFile(asked)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("asked of systemd:\n%swant:\n%s", got, test.want)
			}
			left, err := os.ReadFile(filepath.Join(dir, "state"))
			if err != nil {
				t.Fatal(err)
			}
			gone := strings.HasSuffix(test.script, "postremove.sh") && test.argument != "remove" && test.before == ""
			if gone != (len(left) == 0) {
				t.Errorf("state after it: %q", left)
			}
		})
	}
}

// TestOverlay checks the files that the loader's packages install.
func TestOverlay(t *testing.T) {
	for path, executable := range map[string]bool{
		"usr/lib/systemd/system/gitlab-runner-helper-images.service":          false,
		"usr/lib/systemd/system/gitlab-runner-helper-images.timer":            false,
		"usr/lib/systemd/system-preset/80-gitlab-runner-helper-images.preset": false,
		"usr/share/man/man8/gitlab-runner-helper-images.8":                    false,
		"usr/share/doc/gitlab-runner-helper-images-loader/README.md.tmpl":     false,
		"etc/gitlab-runner/helper-images.conf":                                false,
	} {
		// The other bits follow from the umask of the checkout.
		stat, err := os.Stat(filepath.Join("../../packaging/root", path))
		if err != nil {
			t.Error(err)
		} else if got := stat.Mode()&0o100 != 0; got != executable {
			t.Errorf("%s: executable %t, want %t", path, got, executable)
		}
	}
	// The configuration that is installed says nothing but the defaults.
	text, err := os.ReadFile("../../packaging/root/etc/gitlab-runner/helper-images.conf")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if setting, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(setting, " ") && setting != "" {
			h.settings = append([]string{setting}, h.settings...) // each is one that the loader knows
		} else if !strings.HasPrefix(line, "#") && line != "" {
			t.Errorf("line %q is in force", line)
		}
	}
	h.install("19.3.0", hostHelper())
	h.want(allPresent, []string{"ok"}, "verify")
}
