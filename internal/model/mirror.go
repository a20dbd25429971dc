package model

// canon returns the one that stands for a state and its mirror images: workers are alike, and so are peers; the order of pushes on their
// way and of timers that run out for the same reasons means nothing.
func (m *model) canon(s state) state {
	for p := range m.Peers {
		s.tidy(p)
	}
	best, least := s, m.rank(s)
	consider := func(x state) {
		if n := m.rank(x); n < least {
			best, least = x, n
		}
	}
	each := func(x state) {
		consider(x)
		if m.Peers == 2 {
			consider(x.swapPeers())
		}
	}
	each(s)
	if m.Workers == 2 {
		each(s.swapWorkers(0, 1, m.Peers))
	}
	return best
}

// tidy sorts what has no order.
func (s *state) tidy(p int) {
	x := &s.peers[p]
	n := int(x.count())
	var edge [maxTimers + 1]bool
	for _, f := range x.flights {
		if f.items != 0 {
			edge[f.before] = true
		}
	}
	for i := range s.workers {
		if l := s.workers[i].late[p]; l != 0 {
			edge[l-1] = true
		}
	}
	for i := 1; i < n; i++ {
		for j := i; j > 0 && !edge[j] && x.timers[j].rank() < x.timers[j-1].rank(); j-- {
			x.timers[j], x.timers[j-1] = x.timers[j-1], x.timers[j]
		}
	}
	s.sortFlights(p)
}

func (s *state) sortFlights(p int) {
	f := &s.peers[p].flights
	for i := 1; i < maxFlights; i++ {
		for j := i; j > 0 && f[j].rank() > f[j-1].rank(); j-- {
			f[j], f[j-1] = f[j-1], f[j]
		}
	}
}

func (f flight) rank() uint32 { return uint32(f.items)<<16 | uint32(f.owner)<<8 | uint32(f.before) }
func (t timer) rank() uint32  { return uint32(t.from)<<16 | uint32(t.to)<<8 | uint32(t.again) }

func (s state) swapPeers() state {
	s.peers[0], s.peers[1] = s.peers[1], s.peers[0]
	for i := range s.workers {
		w := &s.workers[i]
		w.legs[0], w.legs[1] = w.legs[1], w.legs[0]
		w.late[0], w.late[1] = w.late[1], w.late[0]
		if w.job == retrying || w.job == repairing {
			w.peer = 1 - w.peer
		}
	}
	return s
}

func (s state) swapWorkers(a, b, peers int) state {
	s.workers[a], s.workers[b] = s.workers[b], s.workers[a]
	one, other := nameOf(a), nameOf(b)
	swap := func(h *holder) {
		switch *h {
		case one:
			*h = other
		case other:
			*h = one
		default:
		}
	}
	swap(&s.fanOut)
	for p := range peers {
		swap(&s.peers[p].lag.holder)
		for i := range s.peers[p].flights {
			swap(&s.peers[p].flights[i].owner)
		}
		s.sortFlights(p)
	}
	return s
}
