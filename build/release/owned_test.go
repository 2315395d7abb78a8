package release

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/testutil"
)

// The signature and the key of former sums are removed with them, unless they were
// changed: then nothing is published.
func TestPublishRemovesSignature(t *testing.T) {
	out := t.TempDir()
	files := func() map[string]string {
		sums, err := SHA256Tree(t.Context(), out)
		if err != nil {
			t.Fatal(err)
		}
		return sums
	}
	publish := func(content string, names ...string) error {
		stage := t.TempDir()
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(stage, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		owned, err := ReadOwned(t.Context(), out)
		if err != nil {
			t.Fatal(err)
		}
		_, err = owned.Publish(t.Context(), stage)
		return err
	}
	if err := errors.Join(publish("signed", SumsName, SignatureName, KeyName), publish("other files", "loader")); err != nil {
		t.Fatal(err)
	}
	signed := files()
	if len(signed) != 5 { // with .pretag
		t.Errorf("got %d files, want 5", len(signed))
	}
	key := filepath.Join(out, KeyName)
	if err := os.WriteFile(key, []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := files()
	testutil.WantError(t, publish("unsigned", SumsName), key, "move it away")
	if diff := cmp.Diff(before, files()); diff != "" {
		t.Errorf("after an error (-before +got):\n%s", diff)
	}
	if err := errors.Join(os.WriteFile(key, []byte("signed"), 0o644), publish("unsigned", SumsName)); err != nil {
		t.Fatal(err)
	}
	left := files()
	if _, signature := left[SignatureName]; signature || left[KeyName] != "" || left[SumsName] == signed[SumsName] || left["loader"] != signed["loader"] {
		t.Errorf("left %v of %v", left, signed)
	}
}
