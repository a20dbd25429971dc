package jobs

import (
	"testing"
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
