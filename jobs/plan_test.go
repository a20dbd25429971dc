package jobs

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

func storeOf(id, namespace, title string) entry {
	payload, _ := json.Marshal(map[string]string{"id": id, "namespace": namespace, "title": title})
	return entry{Kind: outbox.KindStore, Key: id, Namespace: namespace, Payload: payload}
}

func deleteOf(id, namespace, title string) entry {
	e := entry{Kind: outbox.KindDelete, Key: id, Namespace: namespace}
	if title != "" {
		e.Payload, _ = json.Marshal(map[string]string{"title": title})
	}
	return e
}

func TestPlan(t *testing.T) {
	t.Parallel()
	a, b := storeOf("a", "n", "A"), storeOf("b", "n", "B")
	wide := limits{items: 1000, bytes: 1 << 20}
	for name, c := range map[string]struct {
		entries []entry
		most    limits
		want    []string // each push, stores before deletions
	}{
		"nothing":                              {nil, wide, nil},
		"stores together":                      {[]entry{a, b, a}, wide, []string{"+a +b +a"}},
		"delete after its store":               {[]entry{a, deleteOf("a", "n", "A"), b}, wide, []string{"+b -a"}},
		"store after its delete":               {[]entry{deleteOf("a", "n", "A"), a}, wide, []string{"-a", "+a"}},
		"deleted twice":                        {[]entry{a, deleteOf("a", "n", "A"), a, deleteOf("a", "n", "A")}, wide, []string{"-a"}},
		"store after another's delete":         {[]entry{deleteOf("a", "n", "A"), b}, wide, []string{"+b -a"}},
		"store with a freed title":             {[]entry{deleteOf("a", "n", "A"), storeOf("b", "n", "A")}, wide, []string{"-a", "+b"}},
		"the same title in another namespace":  {[]entry{deleteOf("a", "n", "A"), storeOf("b", "o", "A")}, wide, []string{"+b -a"}},
		"a delete that does not say its title": {[]entry{deleteOf("a", "n", ""), b}, wide, []string{"-a", "+b"}},
		"move":                                 {[]entry{deleteOf("a", "n", "A"), storeOf("a", "o", "A")}, wide, []string{"-a", "+a"}},
		"items":                                {[]entry{a, b, a, b, a}, limits{items: 2, bytes: 1 << 20}, []string{"+a +b", "+a +b", "+a"}},
		"items count per list": {
			[]entry{a, b, deleteOf("c", "n", "C"), deleteOf("d", "n", "D")},
			limits{items: 2, bytes: 1 << 20},
			[]string{"+a +b -c -d"},
		},
		"bytes":                          {[]entry{a, b, a}, limits{items: 1000, bytes: 2*a.size() + 1}, []string{"+a +b", "+a"}},
		"one that is larger than a push": {[]entry{a, b}, limits{items: 1000, bytes: 10}, []string{"+a", "+b"}},
	} {
		var got []string
		for _, p := range plan(c.entries, c.most) {
			var parts []string
			for _, e := range p {
				parts = append(parts, map[outbox.Kind]string{outbox.KindStore: "+", outbox.KindDelete: "-"}[e.Kind]+e.Key)
			}
			got = append(got, strings.Join(parts, " "))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: pushes (-want +got):\n%s", name, diff)
		}
	}
}

type place struct{ namespace, title string }

// receiver is a peer written the dumb way: wire.md 6.1 and 6.2, conflict key (title, namespace), no tombstones.
type receiver struct {
	rows     map[string]place
	versions map[string]int // of the last applied store
	refused  int            // stores that were skipped or merged into another row
}

func newReceiver() *receiver { return &receiver{rows: map[string]place{}, versions: map[string]int{}} }

func (r *receiver) store(e entry) {
	var m struct {
		Namespace, Title string
		Version          int
	}
	_ = json.Unmarshal(e.Payload, &m)
	key := place{m.Namespace, m.Title}
	for id, at := range r.rows {
		if at == key && id != e.Key {
			r.refused++ // merged
			return
		}
	}
	if at, ok := r.rows[e.Key]; ok && at != key {
		r.refused++ // skipped
		return
	}
	r.rows[e.Key] = key
	r.versions[e.Key] = max(r.versions[e.Key], m.Version) // the newer one wins
}

func (r *receiver) apply(push []entry) {
	for _, e := range push {
		if e.Kind == outbox.KindStore {
			r.store(e)
		}
	}
	for _, e := range push {
		if e.Kind == outbox.KindDelete {
			delete(r.rows, e.Key)
			delete(r.versions, e.Key)
		}
	}
}

// history draws a log that a writer could have written, and the state that the writer has in the end.
func history(t *rapid.T) (log []entry, state map[string]place) {
	state = map[string]place{}
	taken := func(k place) bool {
		for _, at := range state {
			if at == k {
				return true
			}
		}
		return false
	}
	version := 0
	stored := func(id string, at place) entry {
		version++
		payload, _ := json.Marshal(map[string]any{"id": id, "namespace": at.namespace, "title": at.title, "version": version})
		return entry{Kind: outbox.KindStore, Key: id, Namespace: at.namespace, Payload: payload}
	}
	for range rapid.IntRange(1, 40).Draw(t, "length") {
		id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id")
		to := place{"n", rapid.SampledFrom([]string{"T1", "T2", "T3"}).Draw(t, "title")}
		at, exists := state[id]
		switch {
		case rapid.Bool().Draw(t, "delete"):
			if exists {
				title := at.title
				if rapid.Bool().Draw(t, "untitled") {
					title = ""
				}
				log = append(log, deleteOf(id, at.namespace, title))
				delete(state, id)
			}
		case exists && at == to:
			log = append(log, stored(id, to))
		case taken(to): // the writer's own database refuses it
		default:
			if exists {
				log = append(log, deleteOf(id, at.namespace, at.title))
			}
			log = append(log, stored(id, to))
			state[id] = to
		}
	}
	return log, state
}

// The laws of plan: applying the pushes of a range equals applying its entries one by one, and still does when the range, or the first pushes of
// it, were applied before. No store is skipped or merged into another row, which a peer would not let us see.
func TestPlanLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		log, state := history(t)
		most := limits{items: rapid.IntRange(1, 10).Draw(t, "items"), bytes: rapid.IntRange(20, 400).Draw(t, "bytes")}
		cursor := rapid.IntRange(0, len(log)).Draw(t, "cursor")

		one, many := newReceiver(), newReceiver()
		for _, e := range log {
			one.apply([]entry{e})
		}
		if !maps.Equal(one.rows, state) {
			t.Fatalf("one by one gave %v, the writer has %v", one.rows, state)
		}
		for _, e := range log[:cursor] { // acknowledged long ago
			many.apply([]entry{e})
		}
		pushes := plan(log[cursor:], most)
		for range rapid.IntRange(0, 3).Draw(t, "lost answers") {
			for _, p := range pushes[:rapid.IntRange(0, len(pushes)).Draw(t, "applied")] {
				many.apply(p)
			}
		}
		if len(log) > cursor {
			// A shorter range, pushed before and never acknowledged, is pushed again as a part of this one.
			shorter := log[cursor : cursor+rapid.IntRange(0, len(log)-cursor).Draw(t, "shorter")]
			early := newReceiver()
			for _, e := range log[:cursor] {
				early.apply([]entry{e})
			}
			for _, p := range plan(shorter, most) {
				early.apply(p)
			}
			for _, p := range pushes {
				early.apply(p)
			}
			if early.refused > 0 || !maps.Equal(early.rows, state) || !maps.Equal(early.versions, one.versions) {
				t.Fatalf("after a shorter range: got %+v, want %+v", early, one)
			}
		}
		for _, p := range pushes {
			if len(p) == 0 {
				t.Fatal("an empty push")
			}
			many.apply(p)
		}
		if many.refused > 0 {
			t.Fatalf("%d stores were skipped or merged", many.refused)
		}
		if !maps.Equal(many.rows, state) || !maps.Equal(many.versions, one.versions) {
			t.Fatalf("pushes gave %+v, one by one gave %+v", many, one)
		}
	})
}

func TestPackMarksWhatTravelsAlone(t *testing.T) {
	t.Parallel()
	wide := limits{items: 1000, bytes: 1 << 20}
	a := storeOf("a", "n", "A")
	s := pack([]batch{{Entries: []entry{a}}, {Entries: []entry{storeOf("b", "n", "B")}}}, "ai:leader", wide)
	if r := s.pushes[0]; len(s.pushes) != 1 || r.IdempotencyKey != "" || r.Catchup != peer.CatchupBulk || !slices.Equal(r.ExpectIDs, []string{"a", "b"}) {
		t.Errorf("two entries: got %+v", s.pushes)
	}
	s = pack([]batch{{Entries: []entry{a}}}, "ai:leader", wide)
	if r := s.pushes[0]; r.IdempotencyKey != "a" || r.Catchup != peer.CatchupNone || !slices.Equal(r.ExpectIDs, []string{"a"}) {
		t.Errorf("one entry: got %+v", r)
	}
}

func TestScheduleDelay(t *testing.T) {
	t.Parallel()
	s := Schedule{} // 1s to 15s
	for _, c := range []struct{ failures, low, high int }{
		{0, 1000, 1000}, {1, 1000, 1000}, {2, 1000, 2000}, {3, 1000, 4000}, {4, 1000, 8000}, {5, 1000, 15000}, {1000000, 1000, 15000},
	} {
		for range 200 {
			if got := s.Delay(c.failures, 0).Milliseconds(); got < int64(c.low) || got > int64(c.high) {
				t.Errorf("after %d failures: got %d ms, want %d to %d", c.failures, got, c.low, c.high)
			}
		}
	}
	if got := s.Delay(1, 60e9); got != 60e9 {
		t.Errorf("with Retry-After: got %v, want 1m", got)
	}
}
