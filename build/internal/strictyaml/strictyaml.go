// Package strictyaml reads YAML that people write. An unknown key is an error
// that shows its line and the nearest known key.
package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"pretag/build/internal/nearest"
)

// Decode decodes data, which must be exactly one document, into v, a pointer.
func Decode(data []byte, v any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	err := decoder.Decode(v)
	var mismatch *yaml.TypeError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("empty")
	case errors.As(err, &mismatch):
		known := map[string][]string{}
		keys(reflect.TypeOf(v), known)
		for i, text := range mismatch.Errors {
			mismatch.Errors[i] = suggest(text, known)
		}
		return err
	case err != nil:
		return err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
}

// unknownField matches the error for an unknown key (go.yaml.in/yaml/v3 v3.0.4,
// decode.go, mappingStruct).
var unknownField = regexp.MustCompile(`^(.*field (\S+) not found) in type ((?s).*)$`)

// suggest replaces the Go type in the error for an unknown key by the nearest key.
func suggest(text string, known map[string][]string) string {
	field := unknownField.FindStringSubmatch(text)
	if field == nil || len(known[field[3]]) == 0 {
		return text
	}
	key, _ := nearest.Word(field[2], known[field[3]])
	return field[1] + "; the nearest key is " + key
}

// keys adds to known the keys of each struct type that t contains, by the type's name.
func keys(t reflect.Type, known map[string][]string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		keys(t.Elem(), known)
	case reflect.Struct:
		if _, seen := known[t.String()]; seen {
			return
		}
		own := map[string]bool{}
		known[t.String()] = nil // ends the recursion if t contains itself
		for _, field := range reflect.VisibleFields(t) {
			name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if !field.IsExported() || name == "-" {
				continue
			}
			keys(field.Type, known)
			if options == "inline" {
				for _, key := range known[field.Type.String()] {
					own[key] = true
				}
				continue
			}
			if name == "" {
				name = strings.ToLower(field.Name)
			}
			if len(field.Index) == 1 {
				own[name] = true
			}
		}
		known[t.String()] = slices.Sorted(maps.Keys(own))
	}
}
