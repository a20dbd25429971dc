package demo

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// whole is a memory with a value in each of its 26 fields.
const whole = `{"id":"m1","tier":"long","namespace":"a/b","title":"T","content":"C","tags":["x","y"],"priority":5,"confidence":0.5,
	"source":"api","access_count":3,"created_at":"2026-01-02T03:04:05.000006+00:00","updated_at":"2026-01-02T03:04:06.000000+00:00",
	"last_accessed_at":"2026-01-03T00:00:00.000000+00:00","expires_at":"2030-01-01T00:00:00.000000+00:00","entity_id":"e","persona_version":2,
	"source_uri":"uri:x","source_span":{"start":1,"end":2},"confidence_signals":{"freshness_factor":0.9},
	"confidence_decayed_at":"2026-01-04T00:00:00.000000+00:00","metadata":{"agent_id":"ai:x","n":{"deep":[1,2]}},"reflection_depth":1,
	"memory_kind":"claim","citations":[{"uri":"doc:1","accessed_at":"2026-01-01T00:00:00Z"}],"confidence_source":"calibrated","version":3}`

// with is whole with other fields; a nil value removes the field.
func with(t *testing.T, changes map[string]any) []byte {
	t.Helper()
	object, err := decodeObject([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	for field, value := range changes {
		if value == nil {
			delete(object, field)
			continue
		}
		object[field] = value
	}
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWholeHasAllFields(t *testing.T) {
	t.Parallel()
	object, err := decodeObject([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(fields()), 26; got != want {
		t.Errorf("got %d fields, want %d", got, want)
	}
	for field := range maps.Keys(fields()) {
		if object[field] == nil {
			t.Errorf("whole lacks %s", field)
		}
	}
}

// A change of any single field is found, and so is its absence.
func TestCompareFindsEachField(t *testing.T) {
	t.Parallel()
	for field := range fields() {
		for name, value := range map[string]any{"another value": "2001-01-01T00:00:00Z", "absent": nil, "another type": []any{true}} {
			t.Run(field+" "+name, func(t *testing.T) {
				t.Parallel()
				got, err := compare(senderID, []byte(whole), with(t, map[string]any{field: value}))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(comparison{different: []string{field}}, got, cmp.AllowUnexported(comparison{})); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	number := func(s string) json.Number { return json.Number(s) }
	stamped := map[string]any{"scope": "team", "reflection_origin": senderID}
	tests := map[string]struct {
		store, peer map[string]any
		want        comparison
	}{
		"the same":                 {},
		"numbers by value":         {peer: map[string]any{"confidence": number("5e-1"), "priority": number("5.0")}},
		"numbers beyond a float":   {store: map[string]any{"metadata": map[string]any{"n": number("9007199254740993")}}, peer: map[string]any{"metadata": map[string]any{"n": number("9007199254740992")}}, want: comparison{different: []string{"metadata"}}},
		"huge exponents, as text":  {store: map[string]any{"metadata": map[string]any{"n": number("1e1000000000")}}, peer: map[string]any{"metadata": map[string]any{"n": number("10e999999999")}}, want: comparison{different: []string{"metadata"}}},
		"the same huge exponent":   {store: map[string]any{"metadata": map[string]any{"n": number("1e1000000000")}}, peer: map[string]any{"metadata": map[string]any{"n": number("1e1000000000")}}},
		"instants":                 {peer: map[string]any{"created_at": "2026-01-02T04:04:05.000006+01:00", "updated_at": "2026-01-02T03:04:06Z"}},
		"absent is null":           {store: map[string]any{"entity_id": nil}, peer: map[string]any{"entity_id": json.RawMessage("null")}},
		"order of tags":            {peer: map[string]any{"tags": []any{"y", "x"}}, want: comparison{different: []string{"tags"}}},
		"fewer keys in metadata":   {peer: map[string]any{"metadata": map[string]any{"agent_id": "ai:x"}}, want: comparison{different: []string{"metadata"}}},
		"null key in metadata":     {peer: map[string]any{"metadata": json.RawMessage(`{"agent_id":"ai:x","m":null}`)}, want: comparison{different: []string{"metadata"}}},
		"unknown field":            {peer: map[string]any{"mood": "good"}, want: comparison{different: []string{"mood"}}},
		"two fields":               {peer: map[string]any{"title": "U", "content": "D"}, want: comparison{different: []string{"content", "title"}}},
		"earlier version":          {peer: map[string]any{"version": number("1")}, want: comparison{byProtocol: true}},
		"later version":            {peer: map[string]any{"version": number("4")}, want: comparison{different: []string{"version"}}},
		"version zero":             {peer: map[string]any{"version": number("0")}, want: comparison{different: []string{"version"}}},
		"no version":               {peer: map[string]any{"version": nil}, want: comparison{different: []string{"version"}}},
		"stamped reflection":       {store: map[string]any{"memory_kind": "reflection", "metadata": map[string]any{"scope": "team"}}, peer: map[string]any{"memory_kind": "reflection", "metadata": stamped}, want: comparison{byProtocol: true}},
		"stamped on both sides":    {store: map[string]any{"memory_kind": "reflection", "metadata": stamped}, peer: map[string]any{"memory_kind": "reflection", "metadata": stamped}},
		"stamp of somebody else":   {store: map[string]any{"memory_kind": "reflection", "metadata": map[string]any{}}, peer: map[string]any{"memory_kind": "reflection", "metadata": map[string]any{"reflection_origin": "x"}}, want: comparison{different: []string{"metadata"}}},
		"stamp on no reflection":   {store: map[string]any{"metadata": map[string]any{"scope": "team"}}, peer: map[string]any{"metadata": stamped}, want: comparison{different: []string{"metadata"}}},
		"stamp and another change": {store: map[string]any{"memory_kind": "reflection", "metadata": map[string]any{"scope": "org"}}, peer: map[string]any{"memory_kind": "reflection", "metadata": stamped}, want: comparison{different: []string{"metadata"}, byProtocol: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := compare(senderID, with(t, test.store), with(t, test.peer))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(comparison{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestCompareRefusesWhatIsNoObject(t *testing.T) {
	t.Parallel()
	if _, err := compare(senderID, []byte(whole), []byte(`[1]`)); err == nil || !strings.Contains(err.Error(), "of the peer") {
		t.Errorf("got %v, want an error about the peer", err)
	}
	if _, err := compare(senderID, []byte(`{`), []byte(whole)); err == nil || !strings.Contains(err.Error(), "of the store") {
		t.Errorf("got %v, want an error about the store", err)
	}
}

func TestCompareSides(t *testing.T) {
	t.Parallel()
	row := func(id, title string) string { return string(with(t, map[string]any{"id": id, "title": title})) }
	compact := func(rows ...string) string { return strings.Join(rows, "\n") }
	tests := map[string]struct {
		store, peer string
		want        PeerResult
	}{
		"both empty": {want: PeerResult{First: []Difference{}}},
		"equal": {
			store: compact(row("a", "1"), row("b", "2")), peer: compact(row("a", "1"), row("b", "2")),
			want: PeerResult{Rows: 2, Equal: 2, First: []Difference{}},
		},
		"missing at the start, the middle and the end": {
			store: compact(row("a", "1"), row("b", "2"), row("c", "3"), row("d", "4"), row("e", "5")), peer: compact(row("b", "2"), row("d", "4")),
			want: PeerResult{Rows: 2, Equal: 2, Missing: 3, First: []Difference{{"a", "row"}, {"c", "row"}, {"e", "row"}}},
		},
		"extra at the start and the end": {
			store: compact(row("b", "2")), peer: compact(row("a", "1"), row("b", "2"), row("c", "3")),
			want: PeerResult{Rows: 3, Equal: 1, Extra: 2, First: []Difference{{"a", "extra row"}, {"c", "extra row"}}},
		},
		"another id": {
			store: row("a", "1"), peer: row("b", "1"),
			want: PeerResult{Rows: 1, Missing: 1, Extra: 1, First: []Difference{{"a", "row"}, {"b", "extra row"}}},
		},
		"different": {
			store: compact(row("a", "1"), row("b", "2")), peer: compact(row("a", "9"), row("b", "2")),
			want: PeerResult{Rows: 2, Equal: 1, Different: 1, First: []Difference{{"a", "title"}}},
		},
		"by protocol": {
			store: row("a", "1"), peer: string(with(t, map[string]any{"id": "a", "title": "1", "version": 1})),
			want: PeerResult{Rows: 1, ByProtocol: 1, First: []Difference{}},
		},
		"only the first differences are listed": {
			store: compact(row("a", "1"), row("b", "1"), row("c", "1"), row("d", "1"), row("e", "1"), row("f", "1")),
			want:  PeerResult{Missing: 6, First: []Difference{{"a", "row"}, {"b", "row"}, {"c", "row"}, {"d", "row"}, {"e", "row"}}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := compareSides("", senderID, peerSide(strings.NewReader(test.store)), peerSide(strings.NewReader(test.peer)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A peer that is cut off in the middle of its answer is an error, not a peer that lacks rows.
func TestCompareSidesReportsErrors(t *testing.T) {
	t.Parallel()
	cut := io.MultiReader(strings.NewReader(string(with(t, nil))+"\n"), &failingReader{io.ErrUnexpectedEOF})
	_, err := compareSides("", senderID, peerSide(strings.NewReader("")), peerSide(cut))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut answer: got %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if _, err := compareSides("", senderID, peerSide(strings.NewReader("")), peerSide(strings.NewReader("no JSON\n"))); err == nil {
		t.Error("no JSON: got no error")
	}
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }
