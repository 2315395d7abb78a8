// Package provenance records from what, how and with which tools the outputs of a
// build were made: an in-toto statement with SLSA's provenance as its predicate. It
// claims only what the build itself knows: no time of day, and no builder that
// nobody named. Nothing in it prevents forgery; the signature of SHA256SUMS does.
package provenance

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"pretag/build/release"
)

// Types of the statement and of its predicate (in-toto attestation framework
// v1.1, spec/v1/statement.md; SLSA v1.1, provenance.md), and of what this
// project builds, as docs/decisions/0007-accounted-for.md describes it.
const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	buildType     = "pretag:packages/v1"
)

// Unidentified is the builder that SLSA requires if nobody named one.
const Unidentified = "pretag:unidentified-builder"

// A Build is what a statement describes.
type Build struct {
	Outputs    map[string]string // sha256, in hex, of each file, by its path below OUT
	Archives   []release.Archive // intermediate results, with their inputs
	Parameters map[string]string // the variables that decide what is built, with their values
	Tools      map[string]string // versions of what decides the bytes
	Builder    string            // URI of who builds; "" if nobody said
}

// A Statement is an in-toto statement.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Predicate  `json:"predicate"`
}

// A Resource is a file with its digest (spec/v1/resource_descriptor.md).
type Resource struct {
	Name        string            `json:"name"`
	Digest      map[string]string `json:"digest"` // algorithm: hex
	Annotations map[string]string `json:"annotations,omitempty"`
}

// A Predicate is SLSA's provenance.
type Predicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// A BuildDefinition is the task of a build.
type BuildDefinition struct {
	BuildType            string            `json:"buildType"`
	ExternalParameters   map[string]string `json:"externalParameters"`
	ResolvedDependencies []Resource        `json:"resolvedDependencies"`
}

// RunDetails say who built.
type RunDetails struct {
	Builder Builder `json:"builder"`
}

// A Builder is who built, and with which tools.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// Statement returns the statement of the build. Equal builds have equal statements.
func (b Build) Statement() Statement {
	s := Statement{Type: statementType, PredicateType: predicateType, Predicate: Predicate{
		BuildDefinition: BuildDefinition{BuildType: buildType, ExternalParameters: b.Parameters},
		RunDetails:      RunDetails{Builder{ID: cmp.Or(b.Builder, Unidentified), Version: b.Tools}},
	}}
	for _, name := range slices.Sorted(maps.Keys(b.Outputs)) {
		s.Subject = append(s.Subject, Resource{Name: name, Digest: sha256(b.Outputs[name])})
	}
	inputs := map[string]Resource{}
	for _, f := range b.Archives {
		annotations := map[string]string{"layout": f.Input.Layout, "imageDigest": f.Input.Digest, "source": f.Input.Source}
		maps.DeleteFunc(annotations, func(_, value string) bool { return value == "" })
		inputs[f.Input.Name+" "+f.Input.SHA256] = Resource{f.Input.Name, sha256(f.Input.SHA256), annotations}
	}
	dependencies := []Resource{}
	for _, key := range slices.Sorted(maps.Keys(inputs)) {
		dependencies = append(dependencies, inputs[key])
	}
	s.Predicate.BuildDefinition.ResolvedDependencies = dependencies
	return s
}

func sha256(hex string) map[string]string { return map[string]string{"sha256": hex} }

// JSON returns the content of provenance.json.
func (s Statement) JSON() ([]byte, error) { return release.JSON(s) }

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Parse reads a statement that JSON wrote. An unknown field is an error.
func Parse(data []byte) (Statement, error) {
	var s Statement
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, err
	}
	if decoder.More() {
		return s, errors.New("more than one statement")
	}
	var errs []error
	for _, field := range [][3]string{
		{"_type", s.Type, statementType},
		{"predicateType", s.PredicateType, predicateType},
		{"buildType", s.Predicate.BuildDefinition.BuildType, buildType},
	} {
		if field[1] != field[2] {
			errs = append(errs, fmt.Errorf("%s is %q, want %q", field[0], field[1], field[2]))
		}
	}
	if s.Predicate.RunDetails.Builder.ID == "" {
		errs = append(errs, errors.New("no builder"))
	}
	if len(s.Subject) == 0 {
		errs = append(errs, errors.New("no subject"))
	}
	seen := map[string]bool{}
	for _, r := range slices.Concat(s.Subject, s.Predicate.BuildDefinition.ResolvedDependencies) {
		if r.Name == "" || !sha256Hex.MatchString(r.Digest["sha256"]) {
			errs = append(errs, fmt.Errorf("%q has no name or no sha256", r.Name))
		}
	}
	for _, r := range s.Subject {
		if seen[r.Name] {
			errs = append(errs, fmt.Errorf("subject %s is listed twice", r.Name))
		}
		seen[r.Name] = true
	}
	return s, errors.Join(errs...)
}

// Check compares the statement with the files' sha256 values, in hex, by their paths
// below OUT. It reports every difference, with both sides.
func (s Statement) Check(files map[string]string) error {
	var errs []error
	subjects := map[string]bool{}
	for _, r := range s.Subject {
		subjects[r.Name] = true
		if got, ok := files[r.Name]; !ok {
			errs = append(errs, fmt.Errorf("%s: is missing, but the provenance lists it", r.Name))
		} else if want := r.Digest["sha256"]; got != want {
			errs = append(errs, fmt.Errorf("%s: sha256 is %s, the provenance says %s", r.Name, got, want))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !subjects[name] {
			errs = append(errs, fmt.Errorf("%s: is not in the provenance", name))
		}
	}
	return errors.Join(errs...)
}
