package refpeer_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

func TestLinks(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	storeAll(t, peer, "a", "b", "c")
	changed := func(name string, value any) map[string]any {
		l := linkOf("a", "related_to", "c")
		l[name] = value
		return l
	}
	for _, tt := range []struct {
		name string
		link map[string]any
		want string // counter
		log  string
	}{
		{"first", linkOf("a", "related_to", "b"), "links_applied", "link a b related_to linked"},
		{"again", linkOf("a", "related_to", "b"), "noop", "link a b related_to noop"},
		{"another relation", linkOf("a", "supersedes", "b"), "links_applied", "link a b supersedes linked"},
		{"the other way", linkOf("b", "related_to", "a"), "links_applied", "link b a related_to linked"},
		{"source missing", linkOf("x", "related_to", "b"), "skipped", "link x b related_to skipped no such memory"},
		{"target missing", linkOf("a", "related_to", "x"), "skipped", "link a x related_to skipped no such memory"},
		{"one memory", linkOf("a", "related_to", "a"), "skipped", "link a a related_to skipped invalid"},
		{"bad id", linkOf("a", "related_to", "b/c"), "skipped", "link a b/c related_to skipped invalid"},
		{"bad time", changed("created_at", "today"), "skipped", "link a c related_to skipped invalid"},
		{"bad start", changed("valid_from", "today"), "skipped", "link a c related_to skipped invalid"},
		{"bad end", changed("valid_until", ""), "skipped", "link a c related_to skipped invalid"},
		{"reflects", linkOf("a", "reflects_on", "b"), "links_applied", "link a b reflects_on linked"},
		{"reflects on", linkOf("b", "reflects_on", "c"), "links_applied", "link b c reflects_on linked"},
		{"reflects, known", linkOf("a", "reflects_on", "b"), "noop", "link a b reflects_on noop"},
		{"a short circle", linkOf("b", "reflects_on", "a"), "skipped", "link b a reflects_on skipped circle"},
		{"a long circle", linkOf("c", "reflects_on", "a"), "skipped", "link c a reflects_on skipped circle"},
		{"a circle of another relation", linkOf("c", "derived_from", "a"), "links_applied", "link c a derived_from linked"},
		{"unknown level", changed("attest_level", "sworn"), "links_applied", "link a c related_to linked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantCounts(t, peer, "link", fields{"links": []any{tt.link}}, map[string]int{tt.want: 1})
			if got := last(t, peer); got != tt.log {
				t.Errorf("log: got %q, want %q", got, tt.log)
			}
		})
	}
}

// linkVector is the signed link of the protocol's test vectors.
func linkVector(t *testing.T) map[string]any {
	t.Helper()
	signature, err := hex.DecodeString("b369d06dca0069d3f43035479c22e9d2b1f76f4b89bca2f745de9e31ae8381de" +
		"cb3c81f5ba52e0a901e69323be1658c9429dd5ad192ac3b78bfda11537810103")
	if err != nil {
		t.Fatal(err)
	}
	l := linkOf("m-1", "related_to", "m-2")
	l["observed_by"], l["valid_from"], l["signature"] = sender, "2026-06-15T00:00:00+00:00", numbers(signature)
	return l
}

func numbers(b []byte) []int {
	out := make([]int, len(b))
	for i, c := range b {
		out[i] = int(c)
	}
	return out
}

// TestLinkSignature covers what a signature is worth: attested if it is good,
// refused if it is bad, nothing if nobody can tell.
func TestLinkSignature(t *testing.T) {
	t.Parallel()
	keys := keysDir(t)
	for _, tt := range []struct {
		name    string
		keys    string
		changes fields // nil removes
		want    string // attest_level; empty: skipped
	}{
		{"good", keys, nil, "peer_attested"},
		{"claims more", keys, fields{"attest_level": "daemon_signed"}, "peer_attested"},
		{"another start", keys, fields{"valid_from": "2026-06-16T00:00:00+00:00"}, ""},
		{"another relation", keys, fields{"relation": "supersedes"}, ""},
		{"an end", keys, fields{"valid_until": "2027-06-15T00:00:00+00:00"}, ""},
		{"cut short", keys, fields{"signature": []int{1, 2, 3}}, ""},
		{"empty", keys, fields{"signature": []int{}}, ""},
		{"nobody enrolled", "", nil, "unsigned"},
		{"a stranger's", keys, fields{"observed_by": "ai:stranger"}, "unsigned"},
		{"an observer without an id", keys, fields{"observed_by": "../x"}, "unsigned"},
		{"nobody's", keys, fields{"observed_by": nil}, "unsigned"},
		{"none", keys, fields{"signature": nil, "attest_level": "peer_attested"}, "unsigned"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{KeysDir: tt.keys, RequireSignature: refpeer.Off})
			storeAll(t, peer, "m-1", "m-2")
			link := linkVector(t)
			for name, value := range tt.changes {
				link[name] = value
				if value == nil {
					delete(link, name)
				}
			}
			counts := apply(t, peer, fields{"links": []any{link}})
			links := state(t, peer).Links
			if tt.want == "" {
				if counts["skipped"] != 1 || len(links) != 0 || !strings.HasSuffix(last(t, peer), "skipped bad signature") {
					t.Errorf("got %v, %v and %q, want it skipped for its signature", counts, links, last(t, peer))
				}
				return
			}
			if counts["links_applied"] != 1 || len(links) != 1 || links[0].AttestLevel != tt.want {
				t.Errorf("got %v and %+v, want one link, %s", counts, links, tt.want)
			}
		})
	}
}

// TestLinkIsShownWhole wants every field of a link back, as it is on the wire.
func TestLinkIsShownWhole(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{KeysDir: keysDir(t), RequireSignature: refpeer.Off})
	storeAll(t, peer, "m-1", "m-2")
	want := linkVector(t)
	apply(t, peer, fields{"links": []any{want}})
	var signature []any
	for _, n := range want["signature"].([]int) {
		signature = append(signature, float64(n))
	}
	want["signature"], want["attest_level"] = signature, "peer_attested"
	got := get(t, peer, "/_ref/state").json(t)["links"]
	if diff := cmp.Diff([]any{want}, got); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

// TestLinkQuota wants links beyond the day's quota counted, still with 200.
func TestLinkQuota(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{QuotaLinksPerDay: 2})
	storeAll(t, peer, "a", "b", "c")
	store(t, peer, fields{"id": "d", "title": "d", "namespace": "elsewhere"})
	observed := linkOf("b", "related_to", "c")
	observed["observed_by"] = "ai:other"
	wantCounts(t, peer, "three", fields{"links": []any{
		linkOf("a", "related_to", "b"), linkOf("a", "related_to", "b"), linkOf("a", "related_to", "c"),
		linkOf("d", "related_to", "a"), observed,
	}}, map[string]int{"links_applied": 3, "noop": 1, "quota_refused": 1})
}
