package model

// startFanOut takes the undecided batch. Lagging peers that nobody holds are taken along from their cursors, or left to their retries.
func (m *model) startFanOut(s state, w int, out emit) {
	free := false
	for p := range m.Peers {
		free = free || s.free(p)
	}
	out(step{act: startsFanOut, worker: w, to: s.batches}, m.fanOutWith(s, w, passed))
	if free {
		out(step{act: startsFanOutWithLagging, worker: w, to: s.batches}, m.fanOutWith(s, w, todo))
	}
}

func (m *model) fanOutWith(s state, w int, lagging status) state {
	x := &s.workers[w]
	*x = worker{job: fanningOut, batch: s.batches}
	s.fanOut = nameOf(w)
	for p := range m.Peers {
		l := &s.peers[p].lag
		switch {
		case l.exists == 0:
			x.legs[p] = leg{status: todo, from: s.batches - 1}
		case l.holder != nobody:
			x.legs[p] = leg{status: busy}
		case lagging == todo && s.free(p):
			s.takeAlong(w, p)
		default:
			x.legs[p] = leg{status: passed}
		}
	}
	return s
}

// takeAlong leases a lagging lane to a fan-out, which pushes it from its cursor.
func (s *state) takeAlong(w, p int) {
	x, l := &s.workers[w], &s.peers[p].lag
	l.holder, l.rests = nameOf(w), 0
	l.pushedTo = max(l.pushedTo, x.batch)
	x.legs[p] = leg{status: todo, from: l.cursor, holds: 1}
	if l.cursor >= x.batch {
		x.legs[p].status = acked
	}
}

// wait is what a fan-out does about lanes that somebody else holds.
func (m *model) wait(s state, w int, out emit) {
	for p := range m.Peers {
		if s.workers[w].legs[p].status != busy {
			continue
		}
		l := s.peers[p].lag
		named := step{act: leavesLane, worker: w, peer: p, from: l.cursor, to: s.workers[w].batch}
		t := s
		t.workers[w].legs[p].status = passed
		out(named, t)
		t = s
		switch {
		case l.exists == 0 || l.cursor >= s.workers[w].batch:
			t.workers[w].legs[p].status = had
			named.act = hears
			out(named, t)
		case s.free(p):
			t.takeAlong(w, p)
			named.act = takesLane
			out(named, t)
		}
	}
}

// recordFanOut is a fan-out's transactions.
func (m *model) recordFanOut(s state, w int, out emit) {
	x := &s.workers[w]
	over, votes, awaits := true, false, false
	for p := range m.Peers {
		over = over && !x.legs[p].status.awaits() && x.legs[p].status != busy
		votes = votes || x.legs[p].status.votes()
		awaits = awaits || x.legs[p].status.awaits()
	}
	named := step{worker: w, to: x.batch}
	record := func(a act, t state, ok bool) {
		named.act = a
		if !ok {
			named.act, t = recordsNothing, s
			t.stop(w)
		}
		out(named, t)
	}
	switch {
	case over && x.decided == 0 && m.Variant.TwoTransactions:
		t := s
		ok := m.recordVerdict(&t, w)
		record(recordsVerdictOnly, t, ok)
	case over:
		t := s
		ok := m.recordFinished(&t, w)
		record(records, t, ok)
	case votes && awaits && x.decided == 0:
		t := s
		ok := m.recordDecided(&t, w)
		record(recordsDecided, t, ok)
	}
}

// recordVerdict reports whether the batch is still this fan-out's.
func (m *model) recordVerdict(s *state, w int) bool {
	x := &s.workers[w]
	if s.batches != x.batch || s.undecided == 0 || s.fanOut != nameOf(w) && !m.Variant.NoFence {
		return false
	}
	m.judge(s, x)
	s.undecided, s.fanOut = 0, nobody
	x.decided = 1
	for i := range s.workers {
		if r := &s.workers[i]; r.job == repairing && r.batch == x.batch && x.legs[r.peer].status.votes() {
			r.heard = 1
		}
	}
	return true
}

// recordDecided records the verdict while some peers have not answered: they have rows from then on, leased to the fan-out.
func (m *model) recordDecided(s *state, w int) bool {
	if !m.recordVerdict(s, w) {
		return false
	}
	x := &s.workers[w]
	for p := range m.Peers {
		leg, l := &x.legs[p], &s.peers[p].lag
		switch {
		case leg.status == busy:
			leg.status = passed
		case leg.status.awaits() && leg.holds == 0:
			if l.exists == 0 {
				*l = lag{exists: 1, cursor: x.batch - 1, pushedTo: x.batch, holder: nameOf(w)}
				continue
			}
			if m.Variant.ForeignBelieved {
				continue
			}
			leg.holds = foreign // no lease is the note of this push, so a doubt is
			if !m.Variant.ForeignUnnoted {
				m.doubt(s, w, p, x.batch-1, x.batch)
			}
		}
	}
	for p := range m.Peers {
		if x.legs[p].status.ended() && !m.settleLeg(s, w, p) {
			return false
		}
	}
	return true
}

// recordFinished records what is left and ends the job.
func (m *model) recordFinished(s *state, w int) bool {
	x := &s.workers[w]
	if x.decided == 0 && !m.recordVerdict(s, w) {
		return false
	}
	for p := range m.Peers {
		if x.legs[p].status.ended() && !m.settleLeg(s, w, p) {
			return false
		}
	}
	if m.Variant.DoubtsLater && x.owes() {
		x.job = owing
		return true
	}
	s.stop(w)
	return true
}

// settleLeg records where a peer is after a fan-out: in step, or behind. It reports whether the row was still held, if there has to be one.
func (m *model) settleLeg(s *state, w, p int) bool {
	x := &s.workers[w]
	leg, l := x.legs[p], &s.peers[p].lag
	x.legs[p].status = none
	if leg.unclear == 1 && (leg.status != acked || !m.Variant.AckEndsDoubt) {
		m.doubt(s, w, p, leg.from, x.batch)
	}
	switch {
	case leg.status == had || leg.status == passed || leg.holds == foreign:
	case leg.status == acked && leg.holds == 1:
		if !m.holds(l, w) {
			return false
		}
		s.advance(p, x.batch)
	case leg.status == acked:
	case leg.holds == 1:
		if m.holds(l, w) {
			l.holder = nobody
		}
	case l.exists == 0:
		*l = lag{exists: 1, cursor: x.batch - 1, pushedTo: x.batch}
	}
	return true
}

// holds is the fence of a lane.
func (m *model) holds(l *lag, w int) bool {
	return l.exists == 1 && (l.holder == nameOf(w) || m.Variant.NoFence)
}

// advance moves the cursor of a held row and gives it back, or removes it.
func (s *state) advance(p int, cursor uint8) {
	l := &s.peers[p].lag
	if s.removable(cursor) {
		*l = lag{}
		return
	}
	*l = lag{exists: 1, cursor: cursor, pushedTo: max(l.pushedTo, cursor)}
}

// doubt writes down that pushes of the batches after from, up to to, may still arrive.
func (m *model) doubt(s *state, w, p int, from, to uint8) {
	switch {
	case m.Variant.NoDoubts:
	case m.Variant.DoubtsLater:
		s.workers[w].legs[p].again = owed
	default:
		m.addTimer(s, p, timer{from: from, to: to})
	}
}

// owes reports whether a worker has doubts that it has not written down.
func (w *worker) owes() bool {
	for _, l := range w.legs {
		if l.again == owed {
			return true
		}
	}
	return false
}

// pay writes the doubts down that a worker owes.
func (m *model) pay(s state, w int, out emit) {
	for p, l := range s.workers[w].legs {
		if l.again == owed {
			m.addTimer(&s, p, timer{from: l.from, to: s.workers[w].batch})
		}
	}
	s.stop(w)
	out(step{act: writesDoubts, worker: w}, s)
}
