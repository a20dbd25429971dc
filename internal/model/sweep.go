package model

// sweep is what becomes of leases that are over and of timers that have run out.
func (m *model) sweep(s state, out emit) {
	if s.undecided == 1 && s.mayExpire(s.fanOut) && !m.Variant.NoSweeper {
		t := s
		t.expire(t.fanOut)
		t.fanOut = nobody
		for p := range m.Peers {
			// It may have pushed to each peer that was in step. A row that is there now says nothing: a repair may have made it since.
			if t.peers[p].lag.exists == 0 || !m.Variant.NoDoubtsBehindRows {
				m.doubtOfLease(&t, p, timer{from: t.batches - 1, to: t.batches})
			}
		}
		out(step{act: losesBatch, to: s.batches}, t)
	}
	for p := range m.Peers {
		if l := s.peers[p].lag; l.exists == 1 && s.mayExpire(l.holder) && !m.Variant.NoSweeper {
			out(step{act: losesLane, peer: p}, m.expireLane(s, p))
		}
		m.ripen(s, p, out)
	}
}

// mayExpire reports whether a lease can be over: that of a dead holder always, that of one that is only slow as often as the configuration
// says.
func (s *state) mayExpire(h holder) bool { return h == dead || h != nobody && s.expiries > 0 }

// expire counts the early end of a lease.
func (s *state) expire(h holder) {
	if h != dead {
		s.expiries--
	}
}

func (m *model) expireLane(s state, p int) state {
	x := &s.peers[p]
	s.expire(x.lag.holder)
	x.lag.holder = nobody
	if x.lag.pushedTo > x.lag.cursor {
		m.doubtOfLease(&s, p, timer{from: x.lag.cursor, to: x.lag.pushedTo})
	}
	if x.run != 0 { // the holder was a repair
		if !m.Variant.OnceOnly && !m.Variant.NoAgainOfLeases {
			m.doubtOfLease(&s, p, timer{again: x.run})
		}
		x.due |= x.run
		x.run = 0
	}
	return s
}

// doubtOfLease writes down that the former holder's pushes may still arrive.
func (m *model) doubtOfLease(s *state, p int, t timer) {
	if !m.Variant.NoDoubts && !m.Variant.NoDoubtsOfLeases {
		m.addTimer(s, p, t)
	}
}

// ripen is what becomes of a peer's timers when Z is over.
func (m *model) ripen(s state, p int, out emit) {
	x := &s.peers[p]
	n := s.runOut(p)
	if m.Variant.Early {
		n = x.count()
	}
	for at := range n {
		d := x.timers[at]
		t := s
		y := &t.peers[p]
		t.removeTimer(p, at)
		named := step{peer: p, from: d.from, to: d.to}
		switch {
		case d.again != 0:
			y.due |= d.again
			named.act, named.ids = repairIsDueAgain, d.again
		case x.lag.exists == 0 || x.lag.cursor >= d.to:
			named.ids = m.superseded(s.end(d.from), s.end(d.to), s.committed)
			if m.Variant.RunAnswers {
				y.due |= named.ids &^ y.run
			} else {
				y.due |= named.ids
			}
			if m.Variant.DueForgetsAgain {
				t.forgetAgain(p, named.ids&^(x.due|x.run))
			}
			named.act = repairIsDue
		case x.lag.exists == 1 && x.lag.cursor <= d.from && (x.lag.holder == nobody || m.Variant.DropHeld):
			named.act = doubtIsDropped
		default:
			continue
		}
		out(named, t)
	}
}

// forgetAgain takes ids out of the timers of repairs.
func (s *state) forgetAgain(p int, set ids) {
	x := &s.peers[p]
	for at := int(x.count()) - 1; at >= 0; at-- {
		if t := &x.timers[at]; t.again&set != 0 {
			if t.again &^= set; t.again == 0 {
				s.removeTimer(p, uint8(at)) //nolint:gosec // small
			}
		}
	}
}
