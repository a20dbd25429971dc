package model

import "slices"

// The largest configuration. A state that needs more panics.
const (
	maxEntries = 4
	maxPeers   = 2
	maxWorkers = 2
	maxFlights = 6
	maxTimers  = 6
)

// state is everything: the database's rows, what each worker has in its memory, what is on its way, and what the peers have.
type state struct {
	peers   [maxPeers]peer
	workers [maxWorkers]worker
	ends    [maxEntries]uint8 // by batch: its last entry

	committed uint8 // entries
	batches   uint8 // that the relay made, numbered from 1
	undecided uint8 // 1 if the last one has no verdict
	fanOut    holder

	crashes, unknowns, expiries uint8 // that may still happen
	dishonest                   uint8 // 1 if met was said without the acknowledgements
}

// holder says whose name a lease carries.
type holder uint8

const (
	nobody holder = 0 // of a batch: its job waits
	dead   holder = 9 // a worker that was killed, or a job of it that ended without giving back; 1 to maxWorkers are the workers
)

// nameOf is the name of the worker at a place.
func nameOf(worker int) holder { return holder(worker) + 1 } //nolint:gosec // a handful

// peer is one peer: what it has, what is on its way to it, and the rows that are about it.
type peer struct {
	flights [maxFlights]flight
	timers  [maxTimers]timer // rows of doubts, and the again_at of repairs, the oldest first
	lag     lag

	memory memory
	acked  uint8 // bits of entries that it has acknowledged, whoever heard of it
	due    ids   // rows of repairs that a job may take
	run    ids   // rows of repairs that a job has taken
}

// lag is a row of lagging.
type lag struct {
	exists   uint8
	cursor   uint8
	pushedTo uint8
	holder   holder
	rests    uint8 // 1: given back by a repair, and left alone until no fan-out pushes to the peer beside it
}

// memory is the only row that a peer can have, because the memories of a history share one title: its id, and the entry that its content is
// from.
type memory struct{ id, version uint8 }

// ids is a set of memory ids; bit 0 is the memory a.
type ids uint8

// flight is a push on its way.
type flight struct {
	items items
	owner holder // who waits for the answer; nobody: it was given up
	// before is the first of the peer's timers that runs out only after this push is delivered or lost: those that were written while it
	// was on its way.
	before uint8
}

// timer is a doubt about the batches after from, up to to; or the again_at of repairs.
type timer struct {
	from, to uint8
	again    ids
}

// worker is what a worker has in its memory.
type worker struct {
	legs     [maxPeers]leg
	late     [maxPeers]uint8 // 1 + the first timer of the peer that was written since the job began, and outlives it; 0: none
	job      job
	peer     uint8 // of a retry or a repair
	batch    uint8 // of a fan-out; the last one that a retry pushes; of a repair the lane's newest when it took the lane
	decided  uint8 // 1 if the fan-out has recorded its verdict
	snapshot uint8 // of a repair: how many entries the state that it pushes has
	subjects ids   // of a repair
	heard    uint8 // 1 if the peer acknowledged a repair's batch, by the verdict
}

type job uint8

const (
	idle job = iota
	fanningOut
	retrying
	repairing
	owing // has doubts to write, which only it knows of: a variant
)

// leg is one peer's part of a job.
type leg struct {
	status  status
	from    uint8 // the cursor that it pushes from
	next    uint8 // which push of the shipment is next, or on its way
	holds   uint8 // 1 if the job leased the peer's row; or foreign
	unclear uint8 // 1 if some push of it had an unknown outcome, whatever came of the next
	again   uint8 // 1 if this is the second attempt; or owed
}

// foreign marks a leg whose row is somebody else's, although the fan-out has recorded its verdict: whoever holds it sees to it that the
// batch is pushed again.
const foreign = 2

// owed marks a leg whose doubt is known to its worker only.
const owed = 2

type status uint8

const (
	none    status = iota // no part in the job, or recorded
	todo                  // the next push can be sent
	sent                  // its answer is awaited
	acked                 // all are acknowledged
	failed                // certainly not applied
	unknown               // may be applied
	busy                  // somebody else holds the lane
	had                   // somebody else brought the batch: a vote
	passed                // not pushed, no vote
)

// mayPush reports whether the leg may still send something.
func (s status) mayPush() bool { return s.awaits() || s == busy }

// awaits reports whether an answer is still to come.
func (s status) awaits() bool { return s == todo || s == sent }

// ended reports whether there is something to record.
func (s status) ended() bool { return s >= acked && s != busy }

// votes reports whether it counts as an acknowledgement.
func (s status) votes() bool { return s == acked || s == had }

func (w *worker) leg() *leg { return &w.legs[w.peer] }

// cursor is the last batch that a peer is written down to have.
func (s *state) cursor(p int) uint8 {
	if l := &s.peers[p].lag; l.exists == 1 {
		return l.cursor
	}
	return s.batches - s.undecided
}

// end is the last entry of a batch, 0 for none.
func (s *state) end(batch uint8) uint8 {
	if batch == 0 {
		return 0
	}
	return s.ends[batch-1]
}

// free reports whether a lagging lane may be leased.
func (s *state) free(p int) bool {
	l := &s.peers[p].lag
	return l.exists == 1 && l.holder == nobody && (l.rests == 0 || !s.beside(p))
}

// beside reports whether a fan-out that nobody has taken over may still push to a peer whose row it does not hold.
func (s *state) beside(p int) bool {
	for i := range s.workers {
		w := &s.workers[i]
		takenOver := w.decided == 0 && s.fanOut != nameOf(i)
		if w.job == fanningOut && !takenOver && w.legs[p].holds != 1 && w.legs[p].status.awaits() {
			return true
		}
	}
	return false
}

// removable reports whether a row that moves to the cursor says nothing any more.
func (s *state) removable(cursor uint8) bool { return s.undecided == 0 && cursor == s.batches }

// addTimer writes a timer down. When it runs out, what is on its way now is over, and so are the jobs that run now, with all that they
// still send.
func (m *model) addTimer(s *state, p int, t timer) {
	x := &s.peers[p]
	at := x.count()
	if at == maxTimers {
		panic("model: too many timers")
	}
	x.timers[at] = t
	if m.Variant.ShortZ {
		return
	}
	for i := range s.workers {
		if w := &s.workers[i]; w.late[p] == 0 && w.legs[p].status.mayPush() {
			w.late[p] = at + 1
		}
	}
}

func (p *peer) count() uint8 {
	for i, t := range p.timers {
		if t == (timer{}) {
			return uint8(i)
		}
	}
	return maxTimers
}

// removeTimer forgets the timer at a place.
func (s *state) removeTimer(p int, at uint8) {
	x := &s.peers[p]
	copy(x.timers[at:], x.timers[at+1:])
	x.timers[maxTimers-1] = timer{}
	for i := range x.flights {
		if f := &x.flights[i]; f.items != 0 && f.before > at {
			f.before--
		}
	}
	for i := range s.workers {
		if l := &s.workers[i].late[p]; *l > at+1 {
			*l--
		}
	}
}

// runOut is how many of a peer's timers, the oldest first, have nothing on its way that they have to outlive.
func (s *state) runOut(p int) uint8 {
	x := &s.peers[p]
	n := x.count()
	for _, f := range x.flights {
		if f.items != 0 {
			n = min(n, f.before)
		}
	}
	for i := range s.workers {
		if l := s.workers[i].late[p]; l != 0 {
			n = min(n, l-1)
		}
	}
	return n
}

// send puts a push on its way.
func (s *state) send(p int, w int, load items) {
	x := &s.peers[p]
	before := x.count()
	if l := s.workers[w].late[p]; l != 0 {
		before = min(before, l-1)
	}
	for i := range x.flights {
		if x.flights[i].items == 0 {
			x.flights[i] = flight{items: load, owner: nameOf(w), before: before}
			return
		}
	}
	panic("model: too many pushes on their way")
}

// flightOf is where the push is that a worker waits for.
func (p *peer) flightOf(w int) int {
	return slices.IndexFunc(p.flights[:], func(f flight) bool { return f.items != 0 && f.owner == nameOf(w) })
}
