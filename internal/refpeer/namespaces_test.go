package refpeer_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// TestNamespaceMeta covers setting and clearing, and the guess of a parent.
func TestNamespaceMeta(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	storeAll(t, peer, "a", "b")
	set := func(namespace, id string, parent any, want map[string]int) {
		t.Helper()
		wantCounts(t, peer, namespace, fields{"namespace_meta": []any{standardOf(namespace, id, parent)}}, want)
	}
	applied, skipped := map[string]int{"namespace_meta_applied": 1}, map[string]int{"skipped": 1}
	set("org-team-deep", "a", nil, applied) // no parent is there yet
	set("org", "a", nil, applied)
	set("org-team", "a", nil, applied)
	set("org-team/x-y", "a", nil, applied)
	set("org-other/deep", "a", nil, applied) // two marks below
	set("orga", "a", nil, applied)           // org is a prefix, but not up to a mark
	set("given", "a", "nowhere", applied)
	set("missing", "x", nil, skipped)
	set("/", "a", nil, skipped)
	set("n", "bad/id", nil, skipped)
	set("n", "a", "/", skipped)
	parents := func() map[string]string {
		out := map[string]string{}
		for _, n := range state(t, peer).NamespaceMeta {
			parent := "none"
			if n.ParentNamespace != nil {
				parent = *n.ParentNamespace
			}
			out[n.Namespace] = n.StandardID + " below " + parent
		}
		return out
	}
	want := map[string]string{
		"org-team-deep": "a below none", "org": "a below none", "org-team": "a below org", "org-team/x-y": "a below org-team",
		"org-other/deep": "a below org",
		"orga":           "a below none", "given": "a below nowhere",
	}
	if diff := cmp.Diff(want, parents()); diff != "" {
		t.Errorf("standards (-want +got):\n%s", diff)
	}

	// The last arrival wins, whatever its time.
	old := standardOf("given", "b", nil)
	delete(old, "updated_at")
	apply(t, peer, fields{"namespace_meta": []any{old}})
	apply(t, peer, fields{"namespace_meta": []any{standardOf("org-team-deep", "b", nil)}})
	if got := parents(); got["given"] != "b below none" || got["org-team-deep"] != "b below org-team" {
		t.Errorf("got %v, want given and org-team-deep overwritten", got)
	}
	wantCounts(t, peer, "clear", fields{"namespace_meta_clears": []string{"given", "given", "never-was"}},
		map[string]int{"namespace_meta_cleared": 1, "noop": 2})
	if got := parents()["given"]; got != "" {
		t.Errorf("got %s for a cleared namespace, want none", got)
	}
}
