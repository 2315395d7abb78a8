// Package nearest finds the word that a person meant.
package nearest

import "slices"

// Word returns the word that is closest to typed, and whether it is close enough
// for typed to be a misspelling of it: one edit for words of up to four letters,
// two for longer ones. If there are no words it returns "".
func Word(typed string, words []string) (word string, close bool) {
	if len(words) == 0 {
		return "", false
	}
	word = slices.MinFunc(words, func(a, b string) int { return distance(typed, a) - distance(typed, b) })
	limit := 2
	if len(word) <= 4 {
		limit = 1
	}
	return word, distance(typed, word) <= limit
}

// distance returns how many letters must be added, removed, changed or swapped
// with their neighbor (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
