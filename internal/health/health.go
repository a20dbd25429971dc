// Package health keeps account of the loops that a process lives by: whether each of them still turns.
//
// A loop says with each turn when it will turn again at the latest. One that has not turned for [Patience] longer than that is stuck. What the
// loops do, and whether they succeed, is no matter here: a loop that gets errors from a database that is away turns.
package health

import (
	"slices"
	"sync"
	"time"
)

// Patience is by how much a loop may be late: a minute. It is above what a turn takes that has to wait for a connection (an attempt is given up after ten
// seconds), for a lock, or for a processor on a busy machine; and below what an operator would want to wait for a restart.
const Patience = time.Minute

// Turned is what a loop calls with each of its turns: within is when it will turn again, at the latest and if nothing is in its way.
type Turned func(within time.Duration)

// Turn is t(within), and nothing for nil: a loop that nobody keeps account of.
func (t Turned) Turn(within time.Duration) {
	if t != nil {
		t(within)
	}
}

// Registry keeps account of loops. Make it with [New]. It is safe for concurrent use.
type Registry struct {
	patience time.Duration
	mu       sync.Mutex // held for no longer than a look at the loops
	loops    []*loop
}

// loop is one of a registry. due is guarded by the registry's lock.
type loop struct {
	name, detail string
	due          time.Time // when its next turn is expected
}

// Stuck is a loop that does not turn.
type Stuck struct {
	Name   string        // from the closed list of names that the program has for its loops: fit for everybody
	Detail string        // which of the loops of that name, such as a queue; for logs
	Late   time.Duration // since when it should have turned, at least [Patience]
}

// New returns a registry without loops. patience 0 is [Patience].
func New(patience time.Duration) *Registry {
	if patience <= 0 {
		patience = Patience
	}
	return &Registry{patience: patience}
}

// Loop adds a loop and returns what it has to call with each turn. The loop counts as having turned now.
func (r *Registry) Loop(name, detail string) Turned {
	l := &loop{name: name, detail: detail, due: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loops = append(r.loops, l)
	return func(within time.Duration) {
		due := time.Now().Add(max(within, 0))
		r.mu.Lock()
		defer r.mu.Unlock()
		l.due = due
	}
}

// Stuck returns the loops that do not turn, in the order in which they were added.
func (r *Registry) Stuck() []Stuck {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var stuck []Stuck
	for _, l := range r.loops {
		if late := now.Sub(l.due); late >= r.patience {
			stuck = append(stuck, Stuck{Name: l.name, Detail: l.detail, Late: late})
		}
	}
	return stuck
}

// Excuse forgives the loops that are late: what they wait for is known to be away. From now on they have all of the patience again.
func (r *Registry) Excuse() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.loops {
		if l.due.Before(now) {
			l.due = now
		}
	}
}

// Names returns the names of the stuck loops, each once, sorted.
func Names(stuck []Stuck) []string {
	names := make([]string, 0, len(stuck))
	for _, s := range stuck {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
