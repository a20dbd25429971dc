package jobs

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

func storeOf(id, namespace, title string) entry {
	payload, _ := json.Marshal(map[string]string{"id": id, "namespace": namespace, "title": title})
	return entry{Kind: outbox.KindStore, Key: id, Namespace: namespace, Payload: payload}
}

func deleteOf(id, title string) entry {
	e := entry{Kind: outbox.KindDelete, Key: id, Namespace: "n"}
	if title != "" {
		e.Payload, _ = json.Marshal(map[string]string{"title": title})
	}
	return e
}

func TestPlan(t *testing.T) {
	t.Parallel()
	a, b := storeOf("a", "n", "A"), storeOf("b", "n", "B")
	for name, c := range map[string]struct {
		entries []entry
		most    limits
		want    []string // each push, stores before deletions
	}{
		"nothing":                              {nil, wide, nil},
		"stores together":                      {[]entry{a, b, a}, wide, []string{"+a +b +a"}},
		"delete after its store":               {[]entry{a, deleteOf("a", "A"), b}, wide, []string{"+b -a"}},
		"store after its delete":               {[]entry{deleteOf("a", "A"), a}, wide, []string{"-a", "+a"}},
		"deleted twice":                        {[]entry{a, deleteOf("a", "A"), a, deleteOf("a", "A")}, wide, []string{"-a"}},
		"store after another's delete":         {[]entry{deleteOf("a", "A"), b}, wide, []string{"+b -a"}},
		"store with a freed title":             {[]entry{deleteOf("a", "A"), storeOf("b", "n", "A")}, wide, []string{"-a", "+b"}},
		"the same title in another namespace":  {[]entry{deleteOf("a", "A"), storeOf("b", "o", "A")}, wide, []string{"+b -a"}},
		"a delete that does not say its title": {[]entry{deleteOf("a", ""), b}, wide, []string{"-a", "+b"}},
		"move":                                 {[]entry{deleteOf("a", "A"), storeOf("a", "o", "A")}, wide, []string{"-a", "+a"}},
		"items":                                {[]entry{a, b, a, b, a}, limits{items: 2, bytes: 1 << 20}, []string{"+a +b", "+a +b", "+a"}},
		"items count per list": {
			[]entry{a, b, deleteOf("c", "C"), deleteOf("d", "D")},
			limits{items: 2, bytes: 1 << 20},
			[]string{"+a +b -c -d"},
		},
		"bytes":                          {[]entry{a, b, a}, limits{items: 1000, bytes: 2*size(a) + 1}, []string{"+a +b", "+a"}},
		"one that is larger than a push": {[]entry{a, b}, limits{items: 1000, bytes: 10}, []string{"+a", "+b"}},
	} {
		var got []string
		for _, p := range plan(c.entries, c.most) {
			var parts []string
			for _, it := range p {
				parts = append(parts, map[list]string{memories: "+", deletions: "-"}[it.list]+it.key)
			}
			got = append(got, strings.Join(parts, " "))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: pushes (-want +got):\n%s", name, diff)
		}
	}
}

func TestPackMarksWhatTravelsAlone(t *testing.T) {
	t.Parallel()
	a := storeOf("a", "n", "A")
	s := pack([]batch{oneBatch(a, storeOf("b", "n", "B"))}, nil, "ai:leader", wide)
	if r := s.pushes[0].req; len(s.pushes) != 1 || r.IdempotencyKey != "" || r.Catchup != peer.CatchupBulk || !slices.Equal(r.ExpectIDs, []string{"a", "b"}) {
		t.Errorf("two entries: got %+v", s.pushes)
	}
	s = pack([]batch{oneBatch(a)}, nil, "ai:leader", wide)
	if r := s.pushes[0].req; r.IdempotencyKey != "a" || r.Catchup != peer.CatchupNone || !slices.Equal(r.ExpectIDs, []string{"a"}) {
		t.Errorf("one entry: got %+v", r)
	}
}

func TestScheduleDelay(t *testing.T) {
	t.Parallel()
	s := Schedule{} // 1s to 15s
	for _, c := range []struct{ failures, low, high int }{
		{0, 1000, 1000}, {1, 1000, 1000}, {2, 1000, 2000}, {3, 1000, 4000}, {4, 1000, 8000}, {5, 6000, 15000}, {1000000, 6000, 15000},
	} {
		for range 200 {
			if got := s.Delay(c.failures, 0).Milliseconds(); got < int64(c.low) || got > int64(c.high) {
				t.Errorf("after %d failures: got %d ms, want %d to %d", c.failures, got, c.low, c.high)
			}
		}
	}
	sum := time.Duration(0)
	for range 2000 {
		sum += s.Delay(20, 0)
	}
	if mean := sum / 2000; mean < 10*time.Second || mean > 11*time.Second {
		t.Errorf("got a mean of %s for a peer that stays away, want 10.5s: no more than a request in 10 s", mean)
	}
	if got := (Schedule{Initial: 10 * time.Second}).Delay(9, 0); got < 10*time.Second || got > 15*time.Second {
		t.Errorf("got %s, want no less than the first pause", got)
	}
	if got := s.Delay(1, 60e9); got != 60e9 {
		t.Errorf("with Retry-After: got %v, want 1m", got)
	}
}
