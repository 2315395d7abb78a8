package engine

import (
	"strings"
	"testing"
)

// What engines answer to /images/load, and the name that GitLab Runner takes from it.
func TestLoadedImage(t *testing.T) {
	for _, test := range []struct{ name, answer, want, fails string }{
		{"docker 20.10", `{"stream":"Loaded image: host/a:1\n"}` + "\n", "host/a:1", ""},
		{"docker, progress first", `{"status":"Loading layer","progressDetail":{"current":1,"total":2}}` + "\r\n" + `{"stream":"Loaded image: a:1\n"}`, "a:1", ""},
		{"docker, no tag", `{"stream":"Loaded image ID: sha256:0123\n"}`, "sha256:0123", ""},
		{"podman 4.3", `{"stream":"Loaded image: host/a:1"}` + "\n", "host/a:1", ""},
		{"podman 4.3, two tags", `{"stream":"Loaded image: host/a:1,host/b:2"}`, "host/a:1,host/b:2", ""},
		{"docker, two tags: the first counts", `{"stream":"Loaded image: a:1\n"}{"stream":"Loaded image: b:2\n"}`, "a:1", ""},
		{"text before the words stays", `{"stream":"now Loaded image: a:1"}`, "now Loaded image: a:1", ""},
		{"empty name: reads on", `{"stream":"Loaded image: \n"}{"stream":"Loaded image: b:2\n"}`, "b:2", ""},
		{"both words: the first wins", `{"stream":"Loaded image: Loaded image ID: x"}`, "Loaded image ID: x", ""},
		{"error", `{"errorDetail":{"message":"archive/tar: invalid tar header"},"error":"archive/tar: invalid tar header"}`, "", "archive/tar: invalid tar header"},
		{"nothing", "", "", "names no loaded image"},
		{"other words", `{"stream":"Loaded"}`, "", "names no loaded image"},
		{"no JSON", "Loaded image: a:1", "", "the engine's answer: invalid character 'L'"},
		{"cut", `{"stream":"Loaded im`, "", "unexpected EOF"},
		{"end of a list", `]`, "", "names no loaded image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := loadedImage(strings.NewReader(test.answer))
			switch {
			case test.fails == "" && (err != nil || got != test.want):
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
				t.Errorf("got %q, %v; want an error with %q", got, err, test.fails)
			}
		})
	}
}

func FuzzLoadedImage(f *testing.F) {
	f.Add(`{"stream":"Loaded image: a:1\n"}`)
	f.Add(`{"stream":"Loaded image ID: sha256:0"}{"error":"x"}`)
	f.Add(`[{"stream":1}`)
	f.Fuzz(func(t *testing.T, answer string) {
		name, err := loadedImage(strings.NewReader(answer))
		if (name == "") != (err != nil) {
			t.Errorf("%q with error %v", name, err)
		}
		if name != strings.TrimSpace(name) {
			t.Errorf("%q is not trimmed", name)
		}
		if name != "" && !strings.Contains(answer, "oaded") && !strings.Contains(answer, `\u`) {
			t.Errorf("%q from an answer without the words", name)
		}
	})
}
