package release

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A line is one KEY=value line of a record.
type line struct {
	key   string
	value any // where it is: a *string, an *int64, or a *[]string, which is joined by commas
}

// maxLine is the longest line of a record, in bytes. The diff IDs of 1000 layers,
// the most that an image may have, are 72 kB.
const maxLine = 256 << 10

// formatLines returns the text of a record. Empty values are left out.
func formatLines(lines []line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		var text string
		switch value := l.value.(type) {
		case *string:
			text = *value
		case *int64:
			text = strconv.FormatInt(*value, 10)
		case *[]string:
			text = strings.Join(*value, ",")
		}
		if text != "" {
			fmt.Fprintf(&b, "%s=%s\n", l.key, text)
		}
	}
	return b.Bytes()
}

// parseLines reads the text of a record, which must have the required keys.
func parseLines(r io.Reader, lines []line, required ...string) error {
	missing := map[string]any{}
	for _, l := range lines {
		missing[l.key] = l.value
	}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	for n := 1; scanner.Scan(); n++ {
		key, text, ok := strings.Cut(scanner.Text(), "=")
		if !ok {
			return fmt.Errorf("line %d: %q is not KEY=value", n, scanner.Text())
		}
		switch value := missing[key].(type) {
		case *string:
			*value = text
		case *int64:
			number, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				return fmt.Errorf("line %d: %s=%q: want a number", n, key, text)
			}
			*value = int64(number)
		case *[]string:
			*value = strings.Split(text, ",")
		default:
			return fmt.Errorf("line %d: unknown or repeated key %q", n, key)
		}
		delete(missing, key)
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	for _, key := range required {
		if missing[key] != nil {
			return fmt.Errorf("no line %s=", key)
		}
	}
	return nil
}
