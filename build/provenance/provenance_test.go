package provenance_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"pretag/build/provenance"
	"pretag/build/release"
)

var (
	one, two = strings.Repeat("1", 64), strings.Repeat("2", 64)
	tarball  = release.Input{Name: "alpine-x86_64.tar", SHA256: one, Layout: "oci-archive", Digest: "sha256:" + two, Source: "example.com/helper:v1"}
)

func build() provenance.Build {
	return provenance.Build{
		Outputs:    map[string]string{"rpm/a.rpm": one, "helper-images/a.docker.tar.zst": two},
		Archives:   []release.Archive{{Helper: "alpine-x86_64", Input: tarball}, {Helper: "alpine-latest-x86_64", Input: tarball}, {Input: release.Input{Name: "a.tar", SHA256: two}}},
		Parameters: map[string]string{"RUNNER_VERSION": "19.3.0", "SOURCE_DATE_EPOCH": "1700000000"},
		Tools:      map[string]string{"go": "go1.26.0"},
	}
}

func TestStatement(t *testing.T) {
	s := build().Statement()
	data, err := s.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := provenance.Parse(data)
	if diff := cmp.Diff(s, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Error(err, diff)
	}
	want := []provenance.Resource{
		{Name: "a.tar", Digest: map[string]string{"sha256": two}},
		{Name: "alpine-x86_64.tar", Digest: map[string]string{"sha256": one}, Annotations: map[string]string{
			"layout": "oci-archive", "imageDigest": "sha256:" + two, "source": "example.com/helper:v1",
		}},
	}
	if diff := cmp.Diff(want, again.Predicate.BuildDefinition.ResolvedDependencies); diff != "" {
		t.Error(diff)
	}
	for range 10 {
		if other, err := build().Statement().JSON(); err != nil || !bytes.Equal(other, data) {
			t.Fatalf("%v, or equal builds have unequal statements", err)
		}
	}

	// in-toto's own reader, which refuses fields that it does not know, and its checks
	var foreign intoto.Statement
	if err := protojson.Unmarshal(data, &foreign); err != nil {
		t.Fatal(err)
	}
	if err := foreign.Validate(); err != nil {
		t.Error(err)
	}
	body, err := protojson.Marshal(foreign.GetPredicate())
	if err != nil {
		t.Fatal(err)
	}
	var predicate slsa.Provenance
	if err := protojson.Unmarshal(body, &predicate); err != nil {
		t.Fatal(err)
	}
	if err := predicate.Validate(); err != nil {
		t.Error(err)
	}
	if id := predicate.GetRunDetails().GetBuilder().GetId(); id != provenance.Unidentified {
		t.Errorf("builder %q", id)
	}
	if predicate.GetRunDetails().GetMetadata() != nil {
		t.Error("claims a time or an invocation")
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := build().Statement().JSON()
	if err != nil {
		t.Fatal(err)
	}
	for old, row := range map[string][2]string{
		"Statement/v1":             {"Statement/v0", `_type is "https://in-toto.io/Statement/v0", want`},
		"provenance/v1":            {"provenance/v2", "predicateType is "},
		"packages/v1":              {"packages/v2", "buildType is "},
		`"sha256": "2`:             {`"sha256": "x`, `"helper-images/a.docker.tar.zst" has no name or no sha256`},
		`"name": "rpm/a.rpm"`:      {`"name": ""`, `"" has no name`},
		`"rpm/a.rpm"`:              {`"helper-images/a.docker.tar.zst"`, "subject helper-images/a.docker.tar.zst is listed twice"},
		`"subject": [`:             {`"subject": [], "x": [`, `unknown field "x"`},
		provenance.Unidentified:    {"", "no builder"},
		string(good):               {string(good) + "{}", "more than one"},
		string(good[:len(good)-1]): {`{}`, "no subject"},
	} {
		_, err := provenance.Parse([]byte(strings.Replace(string(good), old, row[0], 1)))
		if err == nil || !strings.Contains(err.Error(), row[1]) {
			t.Errorf("%.30s: got %v, want %s", old, err, row[1])
		}
	}
}

func TestCheck(t *testing.T) {
	b := build()
	s := b.Statement()
	if err := s.Check(b.Outputs); err != nil {
		t.Error(err)
	}
	files := maps.Clone(b.Outputs)
	files["rpm/a.rpm"], files["deb/new.deb"] = two, one
	delete(files, "helper-images/a.docker.tar.zst")
	err := s.Check(files)
	for _, want := range []string{
		"rpm/a.rpm: sha256 is " + two + ", the provenance says " + one,
		"helper-images/a.docker.tar.zst: is missing",
		"deb/new.deb: is not in the provenance",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
