package verify

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/engine"
	"pretag/build/release"
)

// Every way is proved once for each form of archive, and every image is loaded at
// least once. Only a form with fewer images than ways has one that is loaded again.
func TestPlan(t *testing.T) {
	old := engine.Engine{Kind: engine.Docker, Version: "20.10.24"}
	for _, test := range []struct {
		name   string
		engine engine.Engine
		images []string // compression and size
		want   []string // ways of each image
		proved map[string]map[string]string
	}{
		{"none", engine.Engine{}, nil, nil, map[string]map[string]string{}},
		{"one", engine.Engine{}, []string{"zstd 1"}, []string{"runner pipe load"}, map[string]map[string]string{
			"zstd": {"runner": "0", "pipe": "0", "load": "0"},
		}},
		{"two", engine.Engine{}, []string{"zstd:best 9", "zstd:best 1"}, []string{"load", "runner pipe"}, map[string]map[string]string{
			"zstd": {"runner": "1", "pipe": "1", "load": "0"},
		}},
		{"five", engine.Engine{}, []string{"zstd 5", "zstd 3", "zstd 4", "zstd 1", "zstd 2"}, []string{"load", "load", "load", "runner", "pipe"}, map[string]map[string]string{
			"zstd": {"runner": "3", "pipe": "4", "load": "1"},
		}},
		{"two forms", engine.Engine{}, []string{"zstd 1", "none 1"}, []string{"runner pipe load", "runner pipe load"}, map[string]map[string]string{
			"zstd": {"runner": "0", "pipe": "0", "load": "0"}, "none": {"runner": "1", "pipe": "1", "load": "1"},
		}},
		{"refused", old, []string{"zstd 2", "zstd 1", "zstd 3", "zstd 4"}, []string{"pipe", "load runner pipe", "pipe", "pipe"}, map[string]map[string]string{
			"zstd": {"runner": "1", "pipe": "1", "load": "1"},
		}},
		{"not refused", old, []string{"gzip 2", "gzip 1", "gzip 3"}, []string{"pipe", "runner", "load"}, map[string]map[string]string{
			"gzip": {"runner": "1", "pipe": "0", "load": "2"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var images []expected
			for n, image := range test.images {
				f := release.Archive{Helper: fmt.Sprint(n)}
				if _, err := fmt.Sscan(image, &f.Compression, &f.Size); err != nil {
					t.Fatal(err)
				}
				images = append(images, expected{Archive: f})
			}
			plan, proved := plan(test.engine, images)
			var got []string
			for _, ways := range plan {
				got = append(got, strings.Trim(fmt.Sprint(ways), "[]"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.proved, proved); diff != "" {
				t.Error(diff)
			}
		})
	}
}
