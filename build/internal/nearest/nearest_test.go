package nearest

import "testing"

func TestWord(t *testing.T) {
	words := []string{"HELPERS", "HELPER_IMAGES", "OUT", "JOBS", "FORMATS"}
	for _, test := range []struct {
		typed, word string
		close       bool
	}{
		{"HELPER_IMAGE", "HELPER_IMAGES", true},
		{"HELPER_IMAGSE", "HELPER_IMAGES", true},
		{"HELPER", "HELPERS", true},
		{"FORMTA", "FORMATS", true},
		{"JOSB", "JOBS", true},
		{"LOGS", "JOBS", false},
		{"OUT", "OUT", true},
		{"OUTS", "OUT", true},
		{"OLD", "OUT", false},
		{"HELPER_IM", "HELPER_IMAGES", false},
		{"", "OUT", false},
	} {
		word, close := Word(test.typed, words)
		if close != test.close || close && word != test.word {
			t.Errorf("Word(%q) = %q, %v, want %q, %v", test.typed, word, close, test.word, test.close)
		}
	}
	if word, close := Word("x", nil); word != "" || close {
		t.Errorf("no words: got %q, %v", word, close)
	}
}
