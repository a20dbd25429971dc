package model

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
)

// ErrTooLarge is returned by [Check] when there are more states than its limit: nothing is known about the others.
var ErrTooLarge = errors.New("more states than the limit")

// ErrStuck is the violation of a state that is not done and that no forward step leaves.
var ErrStuck = errors.New("stuck: nothing is left to do, and it is not done")

// ErrNeverDone is the violation of a state from which no state that is done can be reached.
var ErrNeverDone = errors.New("whatever happens from here on, it is never done")

// search walks all states that can be reached from a start, breadth first, so that the way to the first violation is a shortest one. S is a
// state, all of it; T names a step, for the reader.
type search[S comparable, T any] struct {
	Start S

	// Next calls emit for each step that is possible in a state.
	Next func(s S, emit func(step T, next S))

	// Canon returns the one of a state's mirror images that stands for them all.
	Canon func(S) S

	// Check returns what is wrong with a state, nil if nothing is.
	Check func(S) error

	// Done tells whether a state has come to rest; Forward whether a step is more than a failure. Each state that is not done must have a
	// forward step.
	Done    func(S) bool
	Forward func(T) bool

	// Ends makes the search look, in the end, whether each state can still come to one that is done. It takes about twice as long as the
	// search itself.
	Ends Ends

	// Limit is the largest number of states that are kept. They take about 130 bytes each. Must be set.
	Limit int
}

// Ends says whether a search looks for states that can never come to rest.
type Ends int

const (
	// EndsUnchecked leaves it at the check for stuck states.
	EndsUnchecked Ends = iota
	// EndsChecked looks.
	EndsChecked
)

// result is what a search found.
type result[S comparable, T any] struct {
	States int // that were reached, mirror images counted once
	Steps  int // between them
	Depth  int // of the farthest state

	// Violation is the first that was found, nil if there is none; Trace is a shortest way to it, and Last where that leads.
	Violation error
	Trace     []T
	Last      S
}

// Run searches until it finds a violation or has seen every state. The error is ErrTooLarge; what was found until then is in the result.
func (q search[S, T]) Run() (result[S, T], error) {
	w := walk[S, T]{search: q, seed: maphash.MakeSeed(), slots: make([]uint32, 1<<12)}
	w.add(q.Canon(q.Start), 0)
	var r result[S, T]
	edge := len(w.states) // the first state of the next depth
	for i := 0; i < len(w.states); i++ {
		if i == edge {
			r.Depth++
			edge = len(w.states)
		}
		s := w.states[i]
		if err := q.Check(s); err != nil {
			return w.found(r, i, err), nil
		}
		stuck := !q.Done(s)
		q.Next(s, func(step T, next S) {
			r.Steps++
			stuck = stuck && !q.Forward(step)
			w.add(q.Canon(next), uint32(i)) //nolint:gosec // the limit is below
		})
		if stuck {
			return w.found(r, i, ErrStuck), nil
		}
		if len(w.states) > q.Limit {
			r.States = len(w.states)
			return r, fmt.Errorf("%w of %d, at depth %d", ErrTooLarge, q.Limit, r.Depth)
		}
	}
	r.States = len(w.states)
	if q.Ends == EndsChecked {
		if i := w.endless(); i >= 0 {
			return w.found(r, i, ErrNeverDone), nil
		}
	}
	return r, nil
}

// walk is a search under way. A state is known by its place in states, which is the order in which they were found.
type walk[S comparable, T any] struct {
	search[S, T]

	seed    maphash.Seed
	states  []S
	parents []uint32
	slots   []uint32 // open addressing: place + 1, or 0
}

func (w *walk[S, T]) add(s S, parent uint32) {
	if 2*len(w.states) >= len(w.slots) {
		w.grow()
	}
	at := w.slot(s)
	if w.slots[at] != 0 {
		return
	}
	w.states = append(w.states, s)
	w.parents = append(w.parents, parent)
	w.slots[at] = uint32(len(w.states)) //nolint:gosec // the limit is below
}

// slot is where s is, or where it would go.
func (w *walk[S, T]) slot(s S) uint64 {
	mask := uint64(len(w.slots)) - 1
	at := maphash.Comparable(w.seed, s) & mask
	for w.slots[at] != 0 && w.states[w.slots[at]-1] != s {
		at = (at + 1) & mask
	}
	return at
}

func (w *walk[S, T]) grow() {
	w.slots = make([]uint32, 2*len(w.slots))
	mask := uint64(len(w.slots)) - 1
	for i, s := range w.states {
		at := maphash.Comparable(w.seed, s) & mask
		for w.slots[at] != 0 {
			at = (at + 1) & mask
		}
		w.slots[at] = uint32(i) + 1
	}
}

// endless returns the first state from which none that is done can be reached, or -1. It goes backwards through the states until nothing
// changes.
func (w *walk[S, T]) endless() int {
	ends := make([]bool, len(w.states))
	for changed := true; changed; {
		changed = false
		for i, s := range slices.Backward(w.states) {
			if ends[i] {
				continue
			}
			ends[i] = w.Done(s)
			w.Next(s, func(_ T, next S) {
				ends[i] = ends[i] || ends[w.slots[w.slot(w.Canon(next))]-1]
			})
			changed = changed || ends[i]
		}
	}
	return slices.Index(ends, false)
}

// found completes a result with the way to a state. The steps are taken again from the start without mirroring, so that in the trace a
// worker or a peer is the same from its first step to its last.
func (w *walk[S, T]) found(r result[S, T], at int, violation error) result[S, T] {
	r.States, r.Violation = len(w.states), violation
	var way []S
	for ; at > 0; at = int(w.parents[at]) {
		way = append(way, w.states[at])
	}
	slices.Reverse(way)
	r.Last = w.Start
	for _, want := range way {
		taken := false
		w.Next(r.Last, func(step T, next S) {
			if taken || w.Canon(next) != want {
				return
			}
			taken = true
			r.Trace = append(r.Trace, step)
			r.Last = next
		})
		if !taken { // Canon does not keep mirror images together
			panic("model: a state's mirror image has other steps than the state")
		}
	}
	return r
}
