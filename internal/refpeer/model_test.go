package refpeer_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"quorumbox/internal/refpeer"
)

// naive is the receiver written the dumb way: rows in a map, one item at a
// time, generic JSON. It shares nothing with the code under test.
type naive struct {
	rows map[string]map[string]any // by id
}

func (n *naive) at(title, ns any) map[string]any {
	for _, row := range n.rows {
		if row["title"] == title && row["namespace"] == ns {
			return row
		}
	}
	return nil
}

// store applies one memory and says what the log must say.
func (n *naive) store(in map[string]any) string {
	if in["priority"].(float64) > 10 {
		return "skipped"
	}
	for field, value := range map[string]any{
		"metadata": map[string]any{}, "memory_kind": "observation", "citations": []any{},
		"confidence_source": "caller_provided", "version": 1.0, "reflection_depth": 0.0,
	} {
		if _, ok := in[field]; !ok {
			in[field] = value
		}
	}
	old := n.at(in["title"], in["namespace"])
	if old == nil {
		if n.rows[in["id"].(string)] != nil {
			return "skipped"
		}
		n.rows[in["id"].(string)] = in
		return "inserted"
	}
	oldKey := old["updated_at"].(string) + "\x00" + old["id"].(string)
	inKey := in["updated_at"].(string) + "\x00" + in["id"].(string)
	won := inKey > oldKey
	if won {
		author, authored := old["metadata"].(map[string]any)["agent_id"]
		for _, field := range []string{"content", "tags", "source", "updated_at", "metadata"} {
			old[field] = in[field]
		}
		if authored {
			old["metadata"].(map[string]any)["agent_id"] = author
		}
	}
	old["priority"] = max(old["priority"].(float64), in["priority"].(float64))
	ranks := []any{"short", "mid", "long"}
	if slices.Index(ranks, in["tier"]) > slices.Index(ranks, old["tier"]) {
		old["tier"] = in["tier"]
	}
	if old["memory_kind"] != "persona" {
		old["memory_kind"] = in["memory_kind"]
	}
	if in["expires_at"] != nil {
		old["expires_at"] = in["expires_at"]
	}
	if old["tier"] == "long" {
		delete(old, "expires_at")
	}
	if old["entity_id"] == nil && in["entity_id"] != nil {
		old["entity_id"] = in["entity_id"]
	}
	switch {
	case old["id"] != in["id"]:
		return "merged"
	case won:
		return "updated"
	}
	return "lost"
}

func (n *naive) del(id string) string {
	if n.rows[id] == nil {
		return "noop"
	}
	delete(n.rows, id)
	return "deleted"
}

// deepCopy keeps the model's rows apart from the values that were drawn.
func deepCopy(t *rapid.T, v map[string]any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPushEqualsItems is the law of section "Apply semantics": a push of many
// items does what its items do one by one, memories first. State, counters and
// log are compared after every push.
func TestPushEqualsItems(t *testing.T) {
	t.Parallel()
	peers := 0
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		peers++
		peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: fmt.Sprintf("%s/%d", dir, peers)})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := peer.Close(); err != nil {
				rt.Error(err)
			}
		}()
		model := &naive{rows: map[string]map[string]any{}}
		ids := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		memory := rapid.Custom(func(rt *rapid.T) map[string]any {
			m := map[string]any{
				"id": ids.Draw(rt, "id"), "title": rapid.SampledFrom([]string{"A", "B", "C"}).Draw(rt, "title"),
				"namespace":  rapid.SampledFrom([]string{"n1", "n1", "n2"}).Draw(rt, "ns"),
				"content":    rapid.StringMatching(`[a-z "\\]{1,3}`).Draw(rt, "content"),
				"tags":       rapid.SliceOfN(rapid.StringMatching(`[a-z]`), 0, 2).Draw(rt, "tags"),
				"tier":       rapid.SampledFrom([]string{"short", "mid", "long"}).Draw(rt, "tier"),
				"priority":   rapid.SampledFrom([]int{1, 5, 10, 11}).Draw(rt, "priority"),
				"confidence": 0.5, "source": rapid.SampledFrom([]string{"user", "api"}).Draw(rt, "source"), "access_count": 0,
				"created_at": timestamp(0), "updated_at": timestamp(rapid.IntRange(0, 3).Draw(rt, "updated_at")),
			}
			if rapid.Bool().Draw(rt, "has metadata") {
				m["metadata"] = rapid.SampledFrom([]map[string]any{
					{}, {"agent_id": "ai:x"}, {"agent_id": "ai:y", "scope": "team"}, {"k": 1.0},
				}).Draw(rt, "metadata")
			}
			if rapid.Bool().Draw(rt, "has kind") {
				m["memory_kind"] = rapid.SampledFrom([]string{"persona", "event"}).Draw(rt, "kind")
			}
			if rapid.Bool().Draw(rt, "expires") {
				m["expires_at"] = timestamp(rapid.IntRange(4, 5).Draw(rt, "expires_at"))
			}
			if rapid.Bool().Draw(rt, "has entity") {
				m["entity_id"] = rapid.SampledFrom([]string{"e", "f"}).Draw(rt, "entity")
			}
			return m
		})
		logged := 0
		for range rapid.IntRange(1, 8).Draw(rt, "pushes") {
			memories := rapid.SliceOfN(memory, 0, 6).Draw(rt, "memories")
			deletions := rapid.SliceOfN(ids, 0, 2).Draw(rt, "deletions")
			body, err := json.Marshal(map[string]any{"sender_agent_id": sender, "memories": memories, "deletions": deletions})
			if err != nil {
				rt.Fatal(err)
			}
			a := send(t, peer, string(body))
			if a.status != http.StatusOK {
				rt.Fatalf("got %d %s, want 200", a.status, a.body)
			}
			var want []string
			counts := map[string]float64{}
			for _, m := range memories {
				result := model.store(deepCopy(rt, m))
				want = append(want, "store "+m["id"].(string)+" "+result)
				if result == "skipped" {
					counts["skipped"]++
				} else {
					counts["applied"]++
				}
			}
			for _, id := range deletions {
				result := model.del(id)
				want = append(want, "delete "+id+" "+result)
				counts[result]++
			}
			answer := a.json(t)
			for _, name := range []string{"applied", "skipped", "deleted", "noop"} {
				if answer[name] != counts[name] {
					rt.Fatalf("%s: got %v, want %v", name, answer[name], counts[name])
				}
			}
			log := entries(t, peer)
			var got []string
			for _, e := range log[logged:] {
				got = append(got, fmt.Sprintf("%s %s %s", e.Op, e.ID, e.Result))
			}
			logged = len(log)
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("log (-want +got):\n%s", diff)
			}
		}
		got := map[string]map[string]any{}
		for _, row := range rows(t, peer) {
			got[row["id"].(string)] = row
		}
		if diff := cmp.Diff(model.rows, got); diff != "" {
			rt.Fatalf("rows (-want +got):\n%s", diff)
		}
	})
}
