package verify_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/verify"
)

// furnished is a world with something of everything, of which the peer has a copy.
func furnished(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for i := range 5 {
		w.store(fmt.Sprintf("m-%d", i), nil)
	}
	w.store("elsewhere", values{"namespace": "other/place", "tags": []string{"a", "b"}, "metadata": values{"scope": "team", "n": 1.50, "deep": values{"é": nil}}})
	w.store("reflection", values{"memory_kind": "reflection"})
	for i := range 4 {
		w.store(fmt.Sprintf("private-%d", i), values{"metadata": values{"agent_id": "ai:x"}})
	}
	w.store("secluded", values{"metadata": values{"agent_id": "ai:y", "scope": "private"}})
	w.store("nobody", values{"metadata": values{}})
	w.store("old", values{"tier": "short", "created_at": "2026-01-01T00:00:00Z"})
	w.store("gone", nil)
	w.store("put away", values{"id": "put-away"})
	w.exec(`select memory_delete('gone'), memory_archive('put-away');
		select memory_link('{"source_id":"m-0","target_id":"m-1","relation":"related_to"}'),
		       memory_link('{"source_id":"m-0","target_id":"private-0","relation":"supersedes"}'),
		       memory_link('{"source_id":"private-0","target_id":"secluded","relation":"related_to"}');
		select namespace_set('{"namespace":"ns","standard_id":"m-2"}'), namespace_set('{"namespace":"ns/sub","standard_id":"m-2","parent_namespace":"ns"}');
		select pending_put('{"id":"p-1","action_type":"other","namespace":"ns","requested_by":"ai:x","payload":{"k":[1.0,null]}}'),
		       pending_put('{"id":"p-2","action_type":"other","namespace":"ns","requested_by":"ai:x","payload":null,"memory_id":"m-1"}')`)
	w.mirror()
	return w
}

func TestEqual(t *testing.T) {
	t.Parallel()
	w := furnished(t)
	options := quick()
	options.Links = verify.LinksAll
	report, differences := w.compare(options, w.client)
	if len(differences) > 0 || !report.Equal() {
		t.Errorf("got %v, %+v, want equal", differences, report)
	}
	want := verify.Report{
		Peer: "a", Namespaces: 3, Memories: 14, Differences: map[verify.Kind]int64{}, Unreadable: 1, Expired: 1,
		Requests: report.Requests, Took: report.Took,
	}
	if diff := cmp.Diff(report, want); diff != "" {
		t.Errorf("report (-got +want):\n%s", diff)
	}
}

// damage makes the peer differ in one thing.
var damages = []struct { //nolint:gochecknoglobals // a table of two tests
	name   string
	damage func(w *world)
	want   []verify.Difference
	repair string // kind, key and method
}{
	{
		"a memory is missing", func(w *world) { w.push("deletions", `"m-3"`) },
		[]verify.Difference{{Kind: verify.KindMissing, Key: "m-3", Namespace: "ns"}},
		"memory m-3 store",
	},
	{
		"a private memory is missing", func(w *world) { w.push("deletions", `"private-3"`) },
		[]verify.Difference{{Kind: verify.KindMissing, Key: "private-3", Namespace: "ns"}},
		"memory private-3 store",
	},
	{
		"another author's private memory is missing", func(w *world) { w.push("deletions", `"secluded"`) },
		[]verify.Difference{
			{Kind: verify.KindMissing, Key: "secluded", Namespace: "ns"},
		},
		"memory secluded store",
	},
	{
		"content differs", func(w *world) { w.exec(`update memories set content = 'new' where id = 'm-3'`) },
		[]verify.Difference{{Kind: verify.KindDiffers, Key: "m-3", Namespace: "ns", Fields: []string{"content"}}},
		"memory m-3 renew",
	},
	{
		"everything differs", func(w *world) {
			w.exec(`update memories set namespace = 'ns', title = 't', content = 'new', tags = '{}', source = 'cli', updated_at = now(),
				metadata = '{"scope":"team"}' where id = 'elsewhere'`)
		},
		[]verify.Difference{{
			Kind: verify.KindDiffers, Key: "elsewhere", Namespace: "ns",
			Fields: []string{"namespace", "title", "content", "tags", "source", "updated_at", "metadata"},
		}},
		"memory elsewhere renew",
	},
	{
		"a memory has moved", func(w *world) {
			w.store("stays", values{"namespace": "other/place"})
			w.mirror()
			w.exec(`update memories set namespace = 'ns' where id = 'elsewhere'`)
		},
		[]verify.Difference{{Kind: verify.KindDiffers, Key: "elsewhere", Namespace: "ns", Fields: []string{"namespace"}}},
		"memory elsewhere renew",
	},
	{
		"a deleted memory is back", func(w *world) { w.exec(`select memory_delete('m-3')`); w.settled() },
		[]verify.Difference{{Kind: verify.KindExtra, Key: "m-3", Namespace: "ns"}},
		"memory m-3 renew",
	},
	{
		"an archived memory is live, too", func(w *world) {
			w.push("memories", w.strings(`select memory_json(jsonb_populate_record(null::memories, to_jsonb(a)))::text from archived_memories a`)...)
		},
		[]verify.Difference{{Kind: verify.KindExtra, Key: "put-away", Namespace: "ns"}},
		"memory put-away renew",
	},
	{
		"a memory is unknown", func(w *world) {
			w.exec(`delete from namespace_meta; delete from pending_actions; delete from memories where id = 'elsewhere'`)
			w.push("namespace_meta_clears", `"ns"`, `"ns/sub"`)
			w.exec(`insert into namespace_meta values ('other/place', 'm-0', null, '2026-01-01')`)
			w.mirror()
		},
		[]verify.Difference{{Kind: verify.KindUnknown, Key: "elsewhere", Namespace: "other/place"}},
		"",
	},
	{
		"a memory is not archived", func(w *world) { w.push("restores", `"put-away"`); w.push("deletions", `"put-away"`) },
		[]verify.Difference{{Kind: verify.KindNotArchived, Key: "put-away", Namespace: "ns"}},
		"memory put-away renew",
	},
	{
		"a live memory is archived", func(w *world) {
			w.push("archives", `"m-3"`)
			w.push("memories", w.strings(`select memory_json(m)::text from memories m where id = 'm-3'`)...)
		},
		[]verify.Difference{{Kind: verify.KindArchived, Key: "m-3", Namespace: "ns"}},
		"memory m-3 renew",
	},
	{
		"links are lost", func(w *world) {
			w.push("deletions", `"private-0"`)
			w.push("memories", w.strings(`select memory_json(m)::text from memories m where id = 'private-0'`)...)
		},
		// That from private-0 to secluded is gone, too, and nobody sees it.
		[]verify.Difference{{Kind: verify.KindLinkMissing, Key: "m-0", Namespace: "ns", Fields: []string{"supersedes", "private-0"}}},
		"memory m-0 renew",
	},
	{
		"there is another link", func(w *world) {
			w.push("links", `{"source_id":"m-4","target_id":"m-0","relation":"contradicts","created_at":"2026-01-01T00:00:00+00:00"}`)
		},
		[]verify.Difference{{Kind: verify.KindLinkExtra, Key: "m-4", Namespace: "ns", Fields: []string{"contradicts", "m-0"}}},
		"memory m-4 renew",
	},
	{
		"a standard is missing", func(w *world) { w.push("namespace_meta_clears", `"ns/sub"`) },
		[]verify.Difference{{Kind: verify.KindStandard, Key: "ns/sub", Namespace: "ns/sub", Fields: []string{"standard_id"}}},
		"namespace ns/sub store",
	},
	{
		"a standard is another one", func(w *world) {
			w.push("namespace_meta", `{"namespace":"ns/sub","standard_id":"m-0","parent_namespace":"other"}`)
		},
		[]verify.Difference{{
			Kind: verify.KindStandard, Key: "ns/sub", Namespace: "ns/sub", Fields: []string{"standard_id", "parent_namespace"},
		}},
		"namespace ns/sub store",
	},
	{
		"there is another standard", func(w *world) { w.push("namespace_meta", `{"namespace":"nowhere","standard_id":"m-0"}`) },
		[]verify.Difference{{Kind: verify.KindStandardExtra, Key: "nowhere", Namespace: "nowhere"}},
		"",
	},
	{
		"a pending action is missing", func(w *world) {
			w.exec(`select pending_put('{"id":"p-3","action_type":"other","namespace":"ns","requested_by":"ai:x","payload":1}')`)
			w.settled()
		},
		[]verify.Difference{{Kind: verify.KindPending, Key: "p-3", Namespace: "ns", Fields: []string{"id"}}},
		"pending p-3 store",
	},
	{
		"a pending action differs", func(w *world) {
			w.exec(`select pending_decide('p-1', true, 'ai:y'); update pending_actions set payload = '[1]', approvals = '[{}]' where id = 'p-1'`)
			w.settled()
		},
		[]verify.Difference{{
			Kind: verify.KindPending, Key: "p-1", Namespace: "ns", Fields: []string{"status", "decided_by", "payload", "approvals"},
		}},
		"pending p-1 store",
	},
	{
		"the peer has a pending action of its own", func(w *world) {
			w.push("pendings", `{"id":"own","action_type":"x","namespace":"ns","payload":1,"requested_by":"ai:z","requested_at":"2026-01-01T00:00:00Z","status":"pending"}`)
		}, nil, "",
	},
}

func TestDifferences(t *testing.T) {
	t.Parallel()
	for _, tt := range damages {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := furnished(t)
			tt.damage(w)
			options := quick()
			options.Links = verify.LinksAll
			options.Repair = verify.On
			report, got := w.compare(options, w.client)
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("differences (-got +want):\n%s", diff)
			}
			if report.Equal() != (tt.want == nil) || report.Total() != int64(len(tt.want)) {
				t.Errorf("got %+v, want %d differences", report, len(tt.want))
			}
			repairs := w.strings(`select subject || ' ' || key || ' ' || method from repairs`)
			var want []string
			if tt.repair != "" {
				want = []string{tt.repair}
			}
			if diff := cmp.Diff(repairs, want); diff != "" || report.Repairs != int64(len(want)) {
				t.Errorf("%d repairs (-got +want):\n%s", report.Repairs, diff)
			}
		})
	}
}
