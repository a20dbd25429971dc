package refpeer_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"quorumbox/internal/refpeer"
)

// naiveLists is the receiver of all lists written the dumb way: maps, one item
// at a time. It shares nothing with the code under test.
type naiveLists struct {
	naive

	archived  map[string]map[string]any
	links     map[string]bool   // "source relation target"
	standards map[string]string // namespace: standard
	pendings  map[string]map[string]any
	status    map[string]string
}

// restoredAt stands for the receiver's clock, which no test knows.
const restoredAt = "9999"

// drop removes a live row and what hangs on it.
func (n *naiveLists) drop(id string) {
	delete(n.rows, id)
	for link := range n.links {
		if ends := strings.Fields(link); ends[0] == id || ends[2] == id {
			delete(n.links, link)
		}
	}
	for namespace, standard := range n.standards {
		if standard == id {
			delete(n.standards, namespace)
		}
	}
}

func (n *naiveLists) del(id string) string {
	if n.rows[id] == nil {
		return "noop"
	}
	n.drop(id)
	return "deleted"
}

func (n *naiveLists) archive(id string) string {
	row := n.rows[id]
	if row == nil {
		return "noop"
	}
	n.archived[id] = row
	n.drop(id)
	return "archived"
}

func (n *naiveLists) restore(id string) string {
	row := n.archived[id]
	switch {
	case row == nil:
		return "noop"
	case n.rows[id] != nil || n.at(row["title"], row["namespace"]) != nil:
		return "skipped"
	}
	delete(n.archived, id)
	row["updated_at"] = restoredAt
	n.rows[id] = row
	return "restored"
}

// reaches tells whether a chain of reflections leads from one memory to
// another.
func (n *naiveLists) reaches(from, to string, seen map[string]bool) bool {
	if from == to {
		return true
	}
	seen[from] = true
	for link := range n.links {
		ends := strings.Fields(link)
		if ends[0] == from && ends[1] == "reflects_on" && !seen[ends[2]] && n.reaches(ends[2], to, seen) {
			return true
		}
	}
	return false
}

func (n *naiveLists) link(l map[string]any) string {
	source, relation, target := l["source_id"].(string), l["relation"].(string), l["target_id"].(string)
	key := source + " " + relation + " " + target
	switch {
	case source == target, n.rows[source] == nil, n.rows[target] == nil:
		return "skipped"
	case n.links[key]:
		return "noop"
	case relation == "reflects_on" && n.reaches(target, source, map[string]bool{}):
		return "skipped"
	}
	n.links[key] = true
	return "linked"
}

func (n *naiveLists) decide(t *rapid.T, d map[string]any) string {
	id := d["id"].(string)
	if n.status[id] != "pending" {
		return "noop"
	}
	if d["approved"] != true {
		n.status[id] = "rejected"
		return "decided"
	}
	n.status[id] = "approved"
	switch action := n.pendings[id]; action["action_type"] {
	case "store":
		n.store(deepCopy(t, action["payload"].(map[string]any)))
	case "delete":
		n.del(action["memory_id"].(string))
	}
	return "decided"
}

func (n *naiveLists) set(m map[string]any) string {
	standard := m["standard_id"].(string)
	if n.rows[standard] == nil {
		return "skipped"
	}
	n.standards[m["namespace"].(string)] = standard
	return "set"
}

func (n *naiveLists) clear(namespace string) string {
	if n.standards[namespace] == "" {
		return "noop"
	}
	delete(n.standards, namespace)
	return "cleared"
}

// TestPushOfAllListsEqualsItems is the law of section "Apply semantics" for
// every list: results and state are those of the items one by one, in the order
// of the lists.
func TestPushOfAllListsEqualsItems(t *testing.T) {
	t.Parallel()
	peers, dir := 0, t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		peers++
		peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: fmt.Sprintf("%s/%d", dir, peers), Sync: refpeer.Off})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := peer.Close(); err != nil {
				rt.Error(err)
			}
		}()
		model := &naiveLists{
			naive: naive{rows: map[string]map[string]any{}}, archived: map[string]map[string]any{}, links: map[string]bool{},
			standards: map[string]string{}, pendings: map[string]map[string]any{}, status: map[string]string{},
		}
		logged := 0
		for range rapid.IntRange(2, 10).Draw(rt, "pushes") {
			given := drawLists(rt)
			body, err := json.Marshal(given)
			if err != nil {
				rt.Fatal(err)
			}
			if a := send(t, peer, string(body)); a.status != http.StatusOK {
				rt.Fatalf("got %d %s, want 200", a.status, a.body)
			}
			log := entries(t, peer)
			var got []string
			for _, e := range log[logged:] {
				got = append(got, fmt.Sprintf("%s %s", e.Op, e.Result))
			}
			logged = len(log)
			if diff := cmp.Diff(model.push(rt, given), got); diff != "" {
				rt.Fatalf("log of %s (-want +got):\n%s", body, diff)
			}
		}
		model.compare(t, rt, peer)
	})
}

// drawLists draws a push over few memories, so that its lists meet.
func drawLists(rt *rapid.T) map[string]any {
	ids := rapid.SampledFrom([]string{"a", "b", "c"})
	names := rapid.SampledFrom([]string{"n", "m"})
	memory := rapid.Custom(func(rt *rapid.T) map[string]any {
		return map[string]any{
			"id": ids.Draw(rt, "id"), "title": rapid.SampledFrom([]string{"A", "B", "C"}).Draw(rt, "title"), "namespace": "ns",
			"content": rapid.StringMatching(`[a-z]`).Draw(rt, "content"), "tags": []any{}, "tier": "long", "priority": 5.0,
			"confidence": 0.5, "source": "api", "access_count": 0.0,
			"created_at": timestamp(0), "updated_at": timestamp(rapid.IntRange(0, 3).Draw(rt, "updated_at")),
		}
	})
	link := rapid.Custom(func(rt *rapid.T) map[string]any {
		return linkOf(ids.Draw(rt, "source"), rapid.SampledFrom([]string{"related_to", "reflects_on"}).Draw(rt, "relation"), ids.Draw(rt, "target"))
	})
	pending := rapid.Custom(func(rt *rapid.T) map[string]any {
		return pendingOf(names.Draw(rt, "pending"), fields{
			"action_type": rapid.SampledFrom([]string{"store", "delete", "other"}).Draw(rt, "action"), "memory_id": ids.Draw(rt, "memory"),
			"payload": memory.Draw(rt, "payload"), "status": rapid.SampledFrom([]string{"pending", "pending", "rejected"}).Draw(rt, "status"),
		})
	})
	decision := rapid.Custom(func(rt *rapid.T) map[string]any {
		return decisionOf(names.Draw(rt, "decision"), rapid.Bool().Draw(rt, "approved"))
	})
	standard := rapid.Custom(func(rt *rapid.T) map[string]any {
		return standardOf(names.Draw(rt, "namespace"), ids.Draw(rt, "standard"), nil)
	})
	return map[string]any{
		"sender_agent_id":       sender,
		"memories":              rapid.SliceOfN(memory, 0, 3).Draw(rt, "memories"),
		"deletions":             rapid.SliceOfN(ids, 0, 1).Draw(rt, "deletions"),
		"archives":              rapid.SliceOfN(ids, 0, 1).Draw(rt, "archives"),
		"restores":              rapid.SliceOfN(ids, 0, 2).Draw(rt, "restores"),
		"links":                 rapid.SliceOfN(link, 0, 3).Draw(rt, "links"),
		"pendings":              rapid.SliceOfN(pending, 0, 1).Draw(rt, "pendings"),
		"pending_decisions":     rapid.SliceOfN(decision, 0, 2).Draw(rt, "pending_decisions"),
		"namespace_meta":        rapid.SliceOfN(standard, 0, 2).Draw(rt, "namespace_meta"),
		"namespace_meta_clears": rapid.SliceOfN(names, 0, 1).Draw(rt, "namespace_meta_clears"),
	}
}

// push applies a push item by item and says what the log must say.
func (n *naiveLists) push(t *rapid.T, given map[string]any) []string {
	var want []string
	note := func(op, result string) { want = append(want, op+" "+result) }
	objects := func(list string) []map[string]any { return given[list].([]map[string]any) }
	texts := func(list string) []string { return given[list].([]string) }
	for _, m := range objects("memories") {
		note("store", n.store(deepCopy(t, m)))
	}
	for _, id := range texts("deletions") {
		note("delete", n.del(id))
	}
	for _, id := range texts("archives") {
		note("archive", n.archive(id))
	}
	for _, id := range texts("restores") {
		note("restore", n.restore(id))
	}
	for _, l := range objects("links") {
		note("link", n.link(l))
	}
	for _, p := range objects("pendings") {
		n.pendings[p["id"].(string)], n.status[p["id"].(string)] = p, p["status"].(string)
		note("pending", "parked")
	}
	for _, d := range objects("pending_decisions") {
		note("decision", n.decide(t, d))
	}
	for _, m := range objects("namespace_meta") {
		note("namespace_set", n.set(m))
	}
	for _, namespace := range texts("namespace_meta_clears") {
		note("namespace_clear", n.clear(namespace))
	}
	return want
}

// compare wants the peer's state to be the model's.
func (n *naiveLists) compare(t *testing.T, rt *rapid.T, peer *refpeer.Peer) {
	t.Helper()
	live := map[string]map[string]any{}
	for _, row := range rows(t, peer) {
		if !strings.HasPrefix(row["updated_at"].(string), "2026-01-01T") {
			row["updated_at"] = restoredAt
		}
		live[row["id"].(string)] = row
	}
	if diff := cmp.Diff(n.rows, live); diff != "" {
		rt.Fatalf("rows (-want +got):\n%s", diff)
	}
	s := state(t, peer)
	links, standards, status := map[string]bool{}, map[string]string{}, map[string]string{}
	for _, l := range s.Links {
		links[l.SourceID+" "+l.Relation+" "+l.TargetID] = true
	}
	for _, m := range s.NamespaceMeta {
		standards[m.Namespace] = m.StandardID
	}
	for _, p := range s.Pendings {
		status[p.ID] = p.Status
	}
	if len(s.Archived) != len(n.archived) {
		rt.Fatalf("got %d archived memories, want %d", len(s.Archived), len(n.archived))
	}
	if diff := cmp.Diff([]any{n.links, n.standards, n.status}, []any{links, standards, status}); diff != "" {
		rt.Fatalf("links, standards, actions (-want +got):\n%s", diff)
	}
}
