package tarball_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/tarball"
	"pretag/build/testutil"
)

func TestFromRootfs(t *testing.T) {
	diffID := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}
	for name, want := range map[string]v1.Config{
		// GitLab Runner v15.8.0, executors/docker/docker.go puts this entrypoint back.
		"alpine-arm":      {Entrypoint: []string{"/usr/bin/dumb-init", "/entrypoint"}, Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		"concrete-x86_64": {Cmd: []string{"/usr/bin/gitlab-runner-helper"}},
	} {
		h, _ := testutil.Catalogue(t).Lookup(name)
		raw, err := tarball.FromRootfs(h, []v1.Hash{diffID}, testutil.Created())
		if err != nil {
			t.Fatal(err)
		}
		var got v1.ConfigFile
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Config); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got.OS != "linux" || got.Architecture != h.Platform.Architecture || got.Variant != h.Platform.Variant || !got.Created.Equal(testutil.Created()) {
			t.Errorf("%s: %s", name, raw)
		}
		if _, err := tarball.Keep(raw, h, []v1.Hash{diffID}); err != nil {
			t.Error(err)
		}
	}
}

func TestKeep(t *testing.T) {
	none := []v1.Hash{}
	for _, row := range []struct{ helper, config, want string }{
		{"alpine-arm", `{"os":"linux","architecture":"arm","variant":"v7","rootfs":{"diff_ids":[]}, "unknown": 1}`, ""},
		{"alpine-arm", `{"os":"linux","architecture":"arm"}`, ""},
		{"alpine-arm64", `{"os":"linux","architecture":"arm64","variant":"v8"}`, ""},
		{"ubuntu-x86_64", `{"os":"linux","architecture":"amd64","variant":"v1"}`, ""},
		{"ubuntu-x86_64", `{"os":"linux","architecture":"amd64","variant":"v2"}`, "image is for linux/amd64/v2, want linux/amd64"},
		{"alpine-arm", `{"os":"linux","architecture":"arm","variant":"v6"}`, "image is for linux/arm/v6, want linux/arm/v7"},
		{"ubuntu-arm", `{"os":"linux","architecture":"amd64"}`, "image is for linux/amd64, want linux/arm/v7"},
		{"ubuntu-x86_64", `{"os":"windows","architecture":"amd64"}`, "image is for windows/amd64, want linux/amd64"},
		{"ubuntu-x86_64", `{}`, "want linux/amd64"},
		{"ubuntu-x86_64", `[]`, "config: "},
		{"ubuntu-x86_64", `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:` + strings.Repeat("b", 64) + `"]}}`, "layers have diff IDs []"},
	} {
		h, _ := testutil.Catalogue(t).Lookup(row.helper)
		got, err := tarball.Keep([]byte(row.config), h, none)
		switch {
		case row.want == "" && (err != nil || string(got) != row.config):
			t.Errorf("%s %s: %s, %v, want it as it is", row.helper, row.config, got, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s %s: error %v, want one that holds %q", row.helper, row.config, err, row.want)
		}
	}
}
