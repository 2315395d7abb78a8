package archive_test

import (
	"bytes"
	"testing"

	"pretag/build/release"
	"pretag/build/testutil/archivetest"
)

// A record that is read is written again as it was, but for the lines' order
// and empty values.
func FuzzParseInfo(f *testing.F) {
	f.Add(archivetest.Archives(f, f.TempDir(), "alpine-arm")[0].Info())
	f.Add([]byte("helper=a\nhelper=b\n"))
	f.Add([]byte("size=1\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		one, err := release.ParseInfo(bytes.NewReader(text))
		if err != nil {
			return
		}
		two, err := release.ParseInfo(bytes.NewReader(one.Info()))
		if err != nil {
			return // an empty value is left out, and then is missing
		}
		if !bytes.Equal(one.Info(), two.Info()) {
			t.Errorf("%s\nis read again as\n%s", one.Info(), two.Info())
		}
	})
}
