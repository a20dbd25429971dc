package model

// startRetry takes a lagging lane: it pushes from the cursor, at least as far as was pushed before.
func (m *model) startRetry(s state, w, p int, out emit) {
	l := s.peers[p].lag
	if s.removable(l.cursor) {
		s.peers[p].lag = lag{}
		out(step{act: letsGo, peer: p}, s)
		return
	}
	for to := max(l.pushedTo, l.cursor+1); to <= s.batches; to++ {
		t := s
		t.peers[p].lag.holder, t.peers[p].lag.rests = nameOf(w), 0
		t.peers[p].lag.pushedTo = to
		x := &t.workers[w]
		*x = worker{job: retrying, peer: uint8(p), batch: to} //nolint:gosec // 0 or 1
		x.legs[p] = leg{status: todo, from: l.cursor}
		out(step{act: startsRetry, worker: w, peer: p, from: l.cursor, to: to}, t)
	}
}

// recordRetry is a retry's transaction.
func (m *model) recordRetry(s state, w int, out emit) {
	x := s.workers[w]
	p, leg := int(x.peer), x.legs[x.peer]
	if !leg.status.ended() {
		return
	}
	l := &s.peers[p].lag
	named := step{act: records, worker: w, peer: p}
	switch {
	case !m.holds(l, w):
		named.act = recordsNothing
	case leg.status == acked:
		s.advance(p, x.batch)
	default:
		l.holder = nobody
		if leg.unclear == 1 {
			m.doubt(&s, w, p, leg.from, x.batch)
		}
	}
	if s.workers[w].owes() {
		s.workers[w].job = owing
		s.workers[w].legs[p].status = none
	} else {
		s.stop(w)
	}
	out(named, s)
}

// startRepair takes the due repairs of a peer and its lane: with a row of its own if the peer is in step, otherwise if nothing after the
// cursor was pushed.
func (m *model) startRepair(s state, w, p int, out emit) {
	x := &s.peers[p]
	switch {
	case x.due == 0:
		return
	case x.lag.exists == 0:
		x.lag = lag{exists: 1, cursor: s.cursor(p), pushedTo: s.batches, holder: nameOf(w)}
	case s.free(p) && x.lag.cursor == x.lag.pushedTo:
		x.lag.holder, x.lag.rests = nameOf(w), 0
	default:
		return
	}
	x.run, x.due = x.due, 0
	s.workers[w] = worker{job: repairing, peer: uint8(p), batch: x.lag.pushedTo, subjects: x.run} //nolint:gosec // 0 or 1
	s.workers[w].legs[p] = leg{status: todo, from: x.lag.cursor}
	out(step{act: startsRepair, worker: w, peer: p, ids: x.run}, s)
}

// read is the repair's look at the verdict of a batch that was undecided, and at the store. What has a subject's title now is a subject,
// too: the peer may have merged it into a subject's row. That it is pushed is noted like the others; read reports false if the lease is
// gone by then.
func (m *model) read(s *state, w *worker, name holder) bool {
	if w.heard == 1 {
		w.leg().from = w.batch
	}
	w.snapshot = s.committed
	alive := m.after(s.committed)
	if alive.id == 0 || m.Variant.TouchedOnly || w.subjects&idBit(alive.id) != 0 {
		return true
	}
	w.subjects |= idBit(alive.id)
	if m.Variant.GuestsUnnoted {
		return true
	}
	row := &s.peers[w.peer]
	if row.lag.exists == 0 || row.lag.holder != name {
		return false
	}
	row.run |= idBit(alive.id)
	return true
}

// recordRepair is a repair's transaction.
func (m *model) recordRepair(s state, w int, out emit) {
	x := s.workers[w]
	p, leg := int(x.peer), x.legs[x.peer]
	if !leg.status.ended() {
		return
	}
	row := &s.peers[p]
	named := step{act: records, worker: w, peer: p}
	if !m.holds(&row.lag, w) {
		named.act = recordsNothing
		s.stop(w)
		out(named, s)
		return
	}
	if leg.status != acked {
		row.due |= row.run
		if leg.unclear == 1 && !m.Variant.OnceOnly {
			m.addTimer(&s, p, timer{again: row.run})
		}
	}
	row.run = 0
	s.advance(p, leg.from)
	if row.lag.exists == 1 && leg.from < x.batch && !m.Variant.NoRest {
		row.lag.rests = 1
	}
	s.stop(w)
	out(named, s)
}
