//go:build acceptance

package loader_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// TestRemoveNextToSingle removes the loader's package where the unit stays, because
// it belongs to the single layout of an earlier version: the state does, too. What
// the scriptlets do otherwise is tested with the packages.
func TestRemoveNextToSingle(t *testing.T) {
	needRoot(t)
	testutil.Tool(t, "unshare")
	const prepare = `for at in /run /var/lib /etc/systemd/system /usr/lib/systemd/system; do mount -t tmpfs tmpfs $at; done
mkdir /var/lib/gitlab-runner-helper-images
touch /usr/lib/systemd/system/` + unit
	for script, argument := range map[string]string{"deb/loader-postremove.sh": "purge", "rpm/loader-postremove.sh": "0"} {
		cmd := exec.Command("unshare", "-m", "sh", "-ec", prepare+"\nsh \"$@\"; ls /var/lib", "sh", "../../packaging/scriptlets/"+script, argument)
		if out := wantOutput(t, cmd, 0); out != "gitlab-runner-helper-images\n" {
			t.Errorf("%s has removed the state: %q", script, out)
		}
	}
}
