package jobs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
)

func serverError(int, int) *peer.Error { return &peer.Error{Class: peer.ClassServerError, Status: 500} }
func closedConnection(int, int) *peer.Error {
	return &peer.Error{Class: peer.ClassConnectionLost}
}

// A peer that breaks is believed to have trouble of its own, until it has broken at the same push again and again: then the item that does it is looked for, and blamed only if
// the peer takes others, or nothing else tells.
func TestSendFindsWhatBreaksAPeer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuses    []string
		answer     func(refused, items int) *peer.Error
		deaf       bool
		suspicions int
		acked      bool
		chance     int // it breaks so often only, by chance
		want       []refusal
		fails      peer.Class
		pushes     []string
	}{
		"it may be the peer": {
			refuses: []string{"c"}, answer: serverError, suspicions: suspectAfter - 1, acked: true,
			fails: peer.ClassServerError, pushes: []string{"a b c d"},
		},
		"it takes everything else": {
			refuses: []string{"c"}, answer: serverError, suspicions: suspectAfter, acked: true,
			want: []refusal{{3, 0, peer.ClassServerError}}, pushes: []string{"a b c d", "", "a b", "c d", "c", "c", "d"},
		},
		"it closes the connection": {
			refuses: []string{"c"}, answer: closedConnection, suspicions: suspectAfter, acked: true,
			want: []refusal{{3, 0, peer.ClassConnectionLost}}, pushes: []string{"a b c d", "", "a b", "c d", "c", "c", "d"},
		},
		"the rest of the push tells": {
			refuses: []string{"b"}, answer: serverError, suspicions: suspectAfter,
			want: []refusal{{2, 0, peer.ClassServerError}}, pushes: []string{"", "a b c d", "a b", "a", "b", "b", "c d"},
		},
		"the first, and nothing tells yet": {
			refuses: []string{"a"}, answer: serverError, suspicions: suspectAfter,
			fails: peer.ClassServerError, pushes: []string{"", "a b c d", "a b", "a"},
		},
		"the first, and long enough": {
			refuses: []string{"a"}, answer: serverError, suspicions: certainAfter,
			want: []refusal{{1, 0, peer.ClassServerError}}, pushes: []string{"", "a b c d", "a b", "a", "a", "b", "c d"},
		},
		"a peer that can write nothing": {
			refuses: []string{"a", "b", "c", "d"}, answer: serverError, suspicions: certainAfter,
			want: []refusal{{1, 0, peer.ClassServerError}}, fails: peer.ClassServerError, pushes: []string{"", "a b c d", "a b", "a", "a", "b"},
		},
		"a peer that is away": {
			answer: serverError, deaf: true, suspicions: certainAfter,
			fails: peer.ClassServerError, pushes: []string{""},
		},
		"a peer that goes away meanwhile": {
			answer: serverError, deaf: true, suspicions: certainAfter, acked: true,
			fails: peer.ClassServerError, pushes: []string{"a b c d", ""},
		},
		"by chance": {
			refuses: []string{"a", "b", "c", "d"}, answer: serverError, suspicions: suspectAfter, acked: true, chance: 1,
			pushes: []string{"a b c d", "", "a b", "c d"},
		},
		"by chance, also at one item": {
			refuses: []string{"a", "b", "c", "d"}, answer: serverError, suspicions: suspectAfter, acked: true, chance: 3,
			pushes: []string{"a b c d", "", "a b", "a", "a", "b", "c d"},
		},
		"another failure": {
			refuses: []string{"c"}, answer: func(int, int) *peer.Error { return &peer.Error{Class: peer.ClassUnavailable, Status: 503} }, suspicions: certainAfter, acked: true,
			fails: peer.ClassUnavailable, pushes: []string{"a b c d"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &picky{refuses: c.refuses, answer: c.answer, deaf: c.deaf}
			if left := c.chance; left > 0 {
				p.answer = func(refused, items int) *peer.Error {
					if left--; left == 0 {
						p.refuses = nil
					}
					return c.answer(refused, items)
				}
			}
			how := isolation{parts: p, until: time.Now().Add(time.Hour), suspicions: c.suspicions, acked: c.acked}
			d := pack([]batch{oneBatch(stores("a", "b", "c", "d")...)}, nil, "ai:leader", wide).send(t.Context(), p, "a", how)
			if class := peer.ClassOf(d.err); d.err != nil && class != c.fails || d.err == nil && c.fails != "" {
				t.Errorf("got %v, want class %q", d.err, c.fails)
			}
			if diff := cmp.Diff(c.want, d.refused); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.pushes, p.pushes); diff != "" {
				t.Errorf("pushes (-want +got):\n%s", diff)
			}
		})
	}
}

// flaky fails when it is told to.
type flaky struct {
	fails  []*peer.Error // of the pushes in turn; nil or beyond the end: acknowledged
	pushes int
}

func (f *flaky) Push(context.Context, string, peer.Request) (peer.Report, error) {
	f.pushes++
	if f.pushes <= len(f.fails) && f.fails[f.pushes-1] != nil {
		return peer.Report{Attempts: 1}, f.fails[f.pushes-1]
	}
	return peer.Report{Attempts: 1}, nil
}

// A shipment of several pushes gets to its end at a peer that fails now and then: what failed is repeated once something was acknowledged. A peer that fails at once, or asks to be left
// alone, is.
func TestSendRepeatsWhatFailsOnTheWay(t *testing.T) {
	t.Parallel()
	unavailable := &peer.Error{Class: peer.ClassUnavailable, Status: 503}
	later := &peer.Error{Class: peer.ClassUnavailable, Status: 503, RetryAfter: time.Minute}
	lost := &peer.Error{Class: peer.ClassConnectionLost}
	forbidden := &peer.Error{Class: peer.ClassForbidden, Status: 403}
	limited := &peer.Error{Class: peer.ClassRateLimited, Status: 429}
	for name, c := range map[string]struct {
		fails   []*peer.Error
		repeats int
		pushes  int
		err     error
	}{
		"never fails":            {repeats: 2, pushes: 3},
		"twice on the way":       {fails: []*peer.Error{nil, unavailable, lost}, repeats: 2, pushes: 5},
		"at two pushes":          {fails: []*peer.Error{nil, lost, nil, lost}, repeats: 2, pushes: 5},
		"too often":              {fails: []*peer.Error{nil, lost, lost, lost}, repeats: 2, pushes: 4, err: lost},
		"at once":                {fails: []*peer.Error{lost}, repeats: 2, pushes: 1, err: lost},
		"a fan-out has no time":  {fails: []*peer.Error{nil, lost}, pushes: 2, err: lost},
		"asks to be left alone":  {fails: []*peer.Error{nil, later}, repeats: 2, pushes: 2, err: later},
		"limits the rate":        {fails: []*peer.Error{nil, limited}, repeats: 2, pushes: 2, err: limited},
		"needs a person to mend": {fails: []*peer.Error{nil, forbidden}, repeats: 2, pushes: 2, err: forbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &flaky{fails: c.fails}
				how := isolation{parts: f, until: time.Now().Add(time.Hour), repeats: c.repeats}
				d := pack([]batch{oneBatch(stores("a", "b", "c")...)}, nil, "ai:leader", limits{items: 1, bytes: 1 << 20}).send(t.Context(), f, "a", how)
				if !errors.Is(d.err, c.err) {
					t.Errorf("got %v, want %v", d.err, c.err)
				}
				if f.pushes != c.pushes {
					t.Errorf("got %d pushes, want %d", f.pushes, c.pushes)
				}
			})
		})
	}
}

// What is announced at a time is as much as makes a few pushes, but not less than was announced before.
func TestAffordable(t *testing.T) {
	t.Parallel()
	var batches []batch
	for i := range 100 {
		b := oneBatch(stores(fmt.Sprintf("m-%d", i))...)
		b.Number = int64(i + 1)
		batches = append(batches, b)
	}
	each := limits{items: 1, bytes: 1 << 20} // a push for each
	if got := affordable(batches, 0, each); len(got) > mostPushes || len(got) < mostPushes/2 {
		t.Errorf("got %d batches of a push each, want about %d", len(got), mostPushes)
	}
	if got := affordable(batches, 90, each); len(got) != 90 {
		t.Errorf("got %d batches, want the 90 that were announced", len(got))
	}
	if got := affordable(batches, 0, wide); len(got) != 100 {
		t.Errorf("got %d batches that go in one push, want all 100", len(got))
	}
	batches[0] = oneBatch(stores("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q")...)
	if got := affordable(batches, 0, each); len(got) != 1 {
		t.Errorf("got %d batches, want the first one, whatever it takes", len(got))
	}
}
