package jobs

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

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
		want    []int // entries of each push
	}{
		"nothing":                                {nil, wide, nil},
		"stores together":                        {[]entry{a, b, a}, wide, []int{3}},
		"delete after its store":                 {[]entry{a, deleteOf("a", "n", "A")}, wide, []int{2}},
		"store after its delete":                 {[]entry{deleteOf("a", "n", "A"), a}, wide, []int{1, 1}},
		"store after another's delete":           {[]entry{deleteOf("a", "n", "A"), b}, wide, []int{2}},
		"store with a freed title":               {[]entry{deleteOf("a", "n", "A"), storeOf("b", "n", "A")}, wide, []int{1, 1}},
		"the same title in another namespace":    {[]entry{deleteOf("a", "n", "A"), storeOf("b", "o", "A")}, wide, []int{2}},
		"a delete that does not say its title":   {[]entry{deleteOf("a", "n", ""), b}, wide, []int{1, 1}},
		"that one and another namespace":         {[]entry{deleteOf("a", "n", ""), storeOf("b", "o", "B")}, wide, []int{2}},
		"move: delete in one lane, store in one": {[]entry{deleteOf("a", "n", "A"), storeOf("a", "o", "A")}, wide, []int{1, 1}},
		"items":                                  {[]entry{a, b, a, b, a}, limits{items: 2, bytes: 1 << 20}, []int{2, 2, 1}},
		"items count per list":                   {[]entry{a, b, deleteOf("c", "n", "C"), deleteOf("d", "n", "D")}, limits{items: 2, bytes: 1 << 20}, []int{4}},
		"bytes":                                  {[]entry{a, b, a}, limits{items: 1000, bytes: 2*a.size() + 1}, []int{2, 1}},
		"one that is larger than a push":         {[]entry{a, b}, limits{items: 1000, bytes: 10}, []int{1, 1}},
	} {
		var got []int
		for _, p := range plan(c.entries, c.most) {
			got = append(got, len(p))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: entries of each push (-want +got):\n%s", name, diff)
		}
	}
}

// receiver is a peer written the dumb way: wire.md 6.1 and 6.2, conflict key (title, namespace), no tombstones.
type receiver map[string]titleKey // id → where it is

func (r receiver) store(e entry) {
	var m struct{ Namespace, Title string }
	_ = json.Unmarshal(e.Payload, &m)
	key := titleKey{m.Namespace, m.Title}
	for _, at := range r {
		if at == key {
			return // merged into the row that is there
		}
	}
	if _, ok := r[e.Key]; ok {
		return // same id under another title: skipped
	}
	r[e.Key] = key
}

func (r receiver) apply(push []entry) {
	for _, e := range push {
		if e.Kind == outbox.KindStore {
			r.store(e)
		}
	}
	for _, e := range push {
		if e.Kind == outbox.KindDelete {
			delete(r, e.Key)
		}
	}
}

// The law: applying the pushes equals applying the entries one by one.
func TestPlanEqualsOneByOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		writer := map[string]titleKey{}
		taken := func(k titleKey) bool {
			for _, at := range writer {
				if at == k {
					return true
				}
			}
			return false
		}
		var log []entry
		for range rapid.IntRange(1, 40).Draw(t, "length") {
			id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id")
			key := titleKey{
				rapid.SampledFrom([]string{"n", "o"}).Draw(t, "namespace"),
				rapid.SampledFrom([]string{"T1", "T2", "T3"}).Draw(t, "title"),
			}
			at, exists := writer[id]
			switch {
			case rapid.Bool().Draw(t, "delete"):
				if exists {
					title := at.title
					if rapid.Bool().Draw(t, "untitled") {
						title = ""
					}
					log = append(log, deleteOf(id, at.namespace, title))
					delete(writer, id)
				}
			case exists && at == key:
				log = append(log, storeOf(id, key.namespace, key.title))
			case taken(key): // the writer's own database refuses it
			default:
				if exists {
					log = append(log, deleteOf(id, at.namespace, at.title))
				}
				log = append(log, storeOf(id, key.namespace, key.title))
				writer[id] = key
			}
		}
		most := limits{items: rapid.IntRange(1, 10).Draw(t, "items"), bytes: rapid.IntRange(20, 400).Draw(t, "bytes")}

		one, many := receiver{}, receiver{}
		for _, e := range log {
			one.apply([]entry{e})
		}
		sent := 0
		for _, p := range plan(log, most) {
			if len(p) == 0 {
				t.Fatal("an empty push")
			}
			many.apply(p)
			sent += len(p)
		}
		if sent != len(log) {
			t.Fatalf("sent %d of %d entries", sent, len(log))
		}
		if !maps.Equal(one, many) {
			t.Fatalf("pushes gave %v, one by one gave %v", many, one)
		}
		if !maps.Equal(one, receiver(writer)) {
			t.Fatalf("one by one gave %v, the writer has %v", one, writer)
		}
	})
}

func TestPackCountsWholeBatches(t *testing.T) {
	t.Parallel()
	mk := func(n int64, entries ...entry) batch {
		return batch{Lane: 1, Number: n, Entries: entries, IDs: make([]int64, len(entries))}
	}
	a := storeOf("a", "n", "A")
	s := pack([]batch{
		mk(1, a),
		mk(2, deleteOf("a", "n", "A"), storeOf("a", "n", "B")), // cut inside
		mk(3, storeOf("c", "n", "C")),
	}, "ai:leader", limits{items: 1000, bytes: 1 << 20})
	if diff := cmp.Diff([]int{1, 3}, s.upTo); diff != "" {
		t.Errorf("batches complete after each push (-want +got):\n%s", diff)
	}
	if key := s.pushes[0].IdempotencyKey; key != "" {
		t.Errorf("push of two entries: got Idempotency-Key %q, want none", key)
	}
	single := pack([]batch{mk(1, a)}, "ai:leader", limits{items: 1000, bytes: 1 << 20})
	if r := single.pushes[0]; r.IdempotencyKey != "a" || !slices.Equal(r.ExpectIDs, []string{"a"}) {
		t.Errorf("push of one entry: got key %q and expected ids %q, want a", r.IdempotencyKey, r.ExpectIDs)
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
