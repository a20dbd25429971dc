package model

// emit takes a step and where it leads.
type emit = func(step, state)

// next calls out for each step that is possible in a state. Each is one transaction, one push, or one thing that happens on the way.
func (m *model) next(s state, out emit) {
	m.write(s, out)
	for w := range m.Workers {
		switch s.workers[w].job {
		case idle:
			m.begin(s, w, out)
		case fanningOut:
			m.wait(s, w, out)
			m.recordFanOut(s, w, out)
		case retrying:
			m.recordRetry(s, w, out)
		case repairing:
			m.recordRepair(s, w, out)
		case owing:
			m.pay(s, w, out)
		}
		m.push(s, w, out)
		if s.crashes > 0 && s.workers[w].job != idle {
			t := s
			t.crashes--
			t.stop(w)
			out(step{act: isKilled, worker: w}, t)
		}
	}
	m.sweep(s, out)
	m.deliver(s, out)
}

// write is the writer and the relay.
func (m *model) write(s state, out emit) {
	if int(s.committed) < len(m.log) {
		t := s
		t.committed++
		out(step{act: commits, to: t.committed}, t)
	}
	if s.undecided == 0 && s.end(s.batches) < s.committed {
		t := s
		t.ends[t.batches] = t.committed
		t.batches++
		t.undecided, t.fanOut = 1, nobody
		out(step{act: dispatches, from: t.batches, to: t.committed}, t)
	}
}

// begin is what an idle worker can begin.
func (m *model) begin(s state, w int, out emit) {
	if s.undecided == 1 && s.fanOut == nobody {
		m.startFanOut(s, w, out)
	}
	for p := range m.Peers {
		if s.free(p) {
			m.startRetry(s, w, p, out)
		}
		m.startRepair(s, w, p, out)
	}
}

// push sends the next push of each of a worker's legs, and is what comes of those that are on their way.
func (m *model) push(s state, w int, out emit) {
	for p := range m.Peers {
		switch s.workers[w].legs[p].status {
		case todo:
			t := s
			x := &t.workers[w]
			if x.job == repairing && x.legs[p].next == 0 && !m.read(&t, x, nameOf(w)) {
				t = s
				t.stop(w)
				out(step{act: recordsNothing, worker: w}, t)
				continue
			}
			load := m.shipment(&t, x, p)[x.legs[p].next]
			x.legs[p].status = sent
			t.send(p, w, load)
			out(step{act: sends, worker: w, peer: p, items: load}, t)
		case sent:
			m.answer(s, w, p, out)
		case none, acked, failed, unknown, busy, had, passed:
		}
	}
}

// shipment is what a worker pushes to a peer.
func (m *model) shipment(s *state, w *worker, p int) [2]items {
	if w.job == repairing {
		return m.planRepair(w.subjects, w.snapshot)
	}
	return m.plan(s.end(w.legs[p].from), s.end(w.batch))
}

// answer is what comes of a push whose sender waits. An answer that is lost on its way back is one with an unknown outcome that arrives at
// once.
func (m *model) answer(s state, w, p int, out emit) {
	at := s.peers[p].flightOf(w)
	load := s.peers[p].flights[at].items
	named := step{worker: w, peer: p, items: load}
	tell := func(a act, t state) { named.act = a; out(named, t) }

	t := s
	x := &t.peers[p]
	x.memory = m.apply(x.memory, load.first())
	if load.rest() != 0 {
		x.flights[at].items = load.rest()
		tell(appliesOne, t)
	} else {
		x.flights[at] = flight{}
		m.acknowledge(&t, w, p)
		tell(isAcked, t)
	}

	t = s
	t.peers[p].flights[at] = flight{}
	t.workers[w].legs[p].status = failed
	tell(fails, t)

	if s.unknowns == 0 {
		return
	}
	t = s
	leg := &t.workers[w].legs[p]
	t.unknowns--
	t.peers[p].flights[at].owner = nobody
	leg.unclear, leg.status = 1, unknown
	if m.Variant.NoAnswerIsAck {
		leg.status = acked
	}
	tell(hasNoAnswer, t)
	if t.workers[w].job == fanningOut && leg.again == 0 {
		leg.again, leg.status = 1, todo
		tell(hasNoAnswerAgain, t)
	}
}

// acknowledge moves a leg on after an answer.
func (m *model) acknowledge(s *state, w, p int) {
	x := &s.workers[w]
	leg := &x.legs[p]
	pushes := m.shipment(s, x, p)
	leg.next++
	if int(leg.next) < len(pushes) && pushes[leg.next] != 0 {
		leg.status = todo
		return
	}
	leg.status = acked
	if x.job != repairing {
		for e := s.end(leg.from); e < s.end(x.batch); e++ {
			s.peers[p].acked |= 1 << e
		}
	}
}

// deliver is what comes of the pushes that nobody waits for.
func (m *model) deliver(s state, out emit) {
	for p := range m.Peers {
		for i, f := range s.peers[p].flights {
			if f.items == 0 || f.owner != nobody {
				continue
			}
			t := s
			x := &t.peers[p]
			x.memory = m.apply(x.memory, f.items.first())
			x.flights[i].items = f.items.rest()
			a := appliesOne
			if f.items.rest() == 0 {
				x.flights[i] = flight{}
				a = arrives
			}
			out(step{act: a, peer: p, items: f.items}, t)

			t = s
			t.peers[p].flights[i] = flight{}
			out(step{act: isLost, peer: p, items: f.items}, t)
		}
	}
}

// stop makes a worker idle. Nobody waits for its pushes any more, and what is leased in its name can only run out.
func (s *state) stop(w int) {
	name := nameOf(w)
	s.workers[w] = worker{}
	if s.fanOut == name {
		s.fanOut = dead
	}
	for p := range s.peers {
		x := &s.peers[p]
		if x.lag.holder == name {
			x.lag.holder = dead
		}
		for i := range x.flights {
			if x.flights[i].owner == name {
				x.flights[i].owner = nobody
			}
		}
	}
}
