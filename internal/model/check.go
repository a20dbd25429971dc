package model

import (
	"errors"
	"fmt"
)

// What can be wrong with a state.
var (
	// ErrDishonest: met was recorded without W-1 acknowledgements.
	ErrDishonest = errors.New("met is said without the acknowledgements")
	// ErrCursor: a peer is written down to have a batch that it has not acknowledged.
	ErrCursor = errors.New("a cursor is past what the peer has acknowledged")
	// ErrDiverged: nothing is under way or due any more, and the peer differs from the writer.
	ErrDiverged = errors.New("at rest, and the peer differs from the writer")
)

// check returns what is wrong with a state.
func (m *model) check(s state) error {
	if s.dishonest == 1 {
		return ErrDishonest
	}
	for p := range m.Peers {
		x := &s.peers[p]
		all := uint8(1)<<s.end(s.cursor(p)) - 1
		if x.acked&all != all && !m.Variant.TwoTransactions { // there it is wrong by design, until the second one
			return fmt.Errorf("%w: peer %d, batch %d", ErrCursor, p+1, s.cursor(p))
		}
		if s.committed > s.end(s.batches) || !m.settledPeer(&s, p) {
			continue // the writer is ahead: a repair may have brought what is not dispatched yet, and the log comes behind it
		}
		if x.memory != m.after(s.committed) {
			return fmt.Errorf("%w: peer %d has %s, the writer has %s", ErrDiverged, p+1, m.tellMemory(x.memory), m.tellMemory(m.after(s.committed)))
		}
	}
	return nil
}

// settled reports whether nothing is left to do.
func (m *model) settled(s state) bool {
	for p := range m.Peers {
		if !m.settledPeer(&s, p) {
			return false
		}
	}
	for i := range m.Workers {
		if s.workers[i].job != idle {
			return false
		}
	}
	return int(s.committed) == len(m.log) && s.committed == s.end(s.batches)
}

// settledPeer reports whether nothing of what is dispatched is under way to a peer or due.
func (m *model) settledPeer(s *state, p int) bool {
	x := &s.peers[p]
	return s.undecided == 0 && x.lag.exists == 0 && x.timers[0] == timer{} && x.due|x.run == 0 && x.flights[0] == flight{} && !m.busyWith(s, p)
}

// busyWith reports whether a job may still send something to a peer.
func (m *model) busyWith(s *state, p int) bool {
	for i := range m.Workers {
		w := &s.workers[i]
		if w.legs[p].status != none || w.job == owing && w.legs[p].again == owed {
			return true
		}
	}
	return false
}

// judge notes a verdict that is not honest: the peers' own notes count, not the fan-out's.
func (m *model) judge(s *state, w *worker) {
	met := false
	for p := range m.Peers {
		met = met || w.legs[p].status.votes()
	}
	acks, batch := 0, uint8(1)<<s.end(w.batch)-uint8(1)<<s.end(w.batch-1)
	for p := range m.Peers {
		if s.peers[p].acked&batch == batch {
			acks++
		}
	}
	if met && acks < 1 {
		s.dishonest = 1
	}
}
