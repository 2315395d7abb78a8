// Package deb822 reads Debian's control files: those of packages, dpkg's status
// and machine-readable copyright files.
package deb822

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strings"
)

// maxFields is the most fields that a paragraph may have; dpkg knows about 60.
const maxFields = 256

// A Paragraph is the values of fields by their names in lower case. Continuation
// lines follow the first line of a value without their first space; one that is
// only a dot is empty (deb822(5), Debian Policy 5.1 and 5.6.13).
type Paragraph map[string]string

// Paragraphs yields the paragraphs of a control file. The first error, or the end
// of ctx, is the last thing yielded.
func Paragraphs(ctx context.Context, data []byte) iter.Seq2[Paragraph, error] {
	return func(yield func(Paragraph, error) bool) {
		p, name, value, number := Paragraph{}, "", strings.Builder{}, 0
		endField := func() {
			if name != "" {
				p[name] = value.String()
			}
			name = ""
			value.Reset()
		}
		for line := range bytes.Lines(data) {
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
			number++
			text := strings.TrimRight(string(line), " \t\r\n")
			switch {
			case text == "":
				if endField(); len(p) == 0 {
					continue
				}
				if !yield(p, nil) {
					return
				}
				p = Paragraph{}
			case text[0] == '#':
			case text[0] == ' ' || text[0] == '\t':
				if name == "" {
					yield(nil, fmt.Errorf("line %d: %.200q continues no field", number, text))
					return
				}
				if text = text[1:]; text == "." {
					text = ""
				}
				value.WriteByte('\n')
				value.WriteString(text)
			default:
				endField()
				key, first, ok := strings.Cut(text, ":")
				if !ok {
					yield(nil, fmt.Errorf("line %d: %.200q is not a field", number, text))
					return
				}
				if len(p) == maxFields {
					yield(nil, fmt.Errorf("line %d: paragraph of more than %d fields", number, maxFields))
					return
				}
				name = strings.ToLower(key)
				value.WriteString(strings.TrimSpace(first))
			}
		}
		if endField(); len(p) > 0 {
			yield(p, nil)
		}
	}
}
