package strictyaml_test

import (
	"strings"
	"testing"

	"pretag/build/internal/strictyaml"
)

type inner struct {
	Shared string `yaml:"shared,omitempty"`
	Plain  string
}

type sample struct {
	Name  string         `yaml:"name"`
	Rows  []inner        `yaml:"rows"`
	Named map[string]any `yaml:"named"`
	inner `yaml:",inline"`
	Self  *sample `yaml:"self"`
}

func TestDecodeRefuses(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for _, name := range []string{"b", "c", "d", "e", "f", "g", "h", "i"} {
		before := string(name[0] - 1)
		bomb += name + ": &" + name + " [" + strings.Repeat("*"+before+",", 9) + "]\n"
	}
	for name, row := range map[string]struct{ text, want string }{
		"empty":              {"", "empty"},
		"only a comment":     {"# nothing\n", "empty"},
		"unknown":            {"name: a\nnaem: b\n", "line 2: field naem not found; the nearest key is name"},
		"unknown, nested":    {"rows:\n  - share: a\n", "line 2: field share not found; the nearest key is shared"},
		"unknown, recursive": {"self: {rwos: []}", "line 1: field rwos not found; the nearest key is rows"},
		"twice":              {"name: a\nname: b\n", `line 2: mapping key "name" already defined at line 1`},
		"two documents":      {"name: a\n---\nname: b\n", "more than one YAML document"},
		"wrong type":         {"name: [a]\n", "line 1: cannot unmarshal"},
		"anchors":            {"named:\n  " + strings.ReplaceAll(bomb, "\n", "\n  "), "excessive aliasing"},
		"depth":              {"named: {a: " + strings.Repeat("[", 20_000), "exceeded max depth"},
		"not YAML":           {"name: \"a\n", "yaml: "},
		"tab":                {"name:\n\t- a\n", "yaml: line 2"},
		"NUL":                {"name: \x00\n", "control characters are not allowed"},
		"not UTF-8":          {"name: \xff\n", "yaml: "},
	} {
		err := strictyaml.Decode([]byte(row.text), new(sample))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %.300v, want one that holds %q", name, err, row.want)
		}
	}
	var s sample
	if err := strictyaml.Decode([]byte("name: a\nself: {plain: c}\nrows: [{shared: b}]\n"), &s); err != nil || s.Rows[0].Shared != "b" {
		t.Errorf("%+v, %v", s, err)
	}
}
