package model

import (
	"fmt"
	"hash/maphash"
	"strings"
)

// Config is a model's size.
type Config struct {
	// History is what the writer commits, a letter an entry, at most 4: S stores the memory a, D deletes it; s and d are the same for a
	// memory b of the same title, which the writer can only store while a is not there.
	History string

	Peers   int // 1 or 2; W is 2 in both cases, so one acknowledgement makes a quorum
	Workers int // 1 or 2, each with one job at a time

	// How often it may happen: a worker is killed; a push has an unknown outcome; a lease runs out although its holder lives. A push that
	// certainly fails costs nothing.
	Crashes, Unknowns, Expiries int

	Variant Variant
}

// Variant is what a protocol does differently. The zero value is the rule on.
type Variant struct {
	// NoDoubts: nothing is written down of what may still arrive.
	NoDoubts bool
	// DoubtsLater: a doubt about an unknown outcome is not in the transaction that records the outcome, but in the same worker's next.
	DoubtsLater bool
	// NoDoubtsOfLeases: an unknown outcome is a doubt, a lease that is taken over is none.
	NoDoubtsOfLeases bool
	// NoDoubtsBehindRows: a fan-out that is taken over leaves no doubt about peers that have a row by now.
	NoDoubtsBehindRows bool
	// AckEndsDoubt: an acknowledged second attempt makes the first one's unknown outcome forgotten.
	AckEndsDoubt bool

	// Early: a doubt becomes repairs before Z is over.
	Early bool
	// DropHeld: a doubt behind a lagging peer's cursor is dropped although somebody holds the lane.
	DropHeld bool
	// ShortZ: Z covers what was sent before the doubt was written, and not what the jobs that run then still send.
	ShortZ bool

	// TouchedOnly: the subjects of a repair are the ids that the entries in doubt touch, without those that have their titles now.
	TouchedOnly bool
	// GuestsUnnoted: those are pushed, but only the ids that the doubt was about are rows of repairs.
	GuestsUnnoted bool
	// StoreOnly: a repair stores what lives without deleting it first.
	StoreOnly bool
	// OnceOnly: a repair whose own push had an unknown outcome is done until it is acknowledged, and not again after Z.
	OnceOnly bool
	// NoAgainOfLeases: the same, but only for a repair whose lease is taken over.
	NoAgainOfLeases bool
	// RunAnswers: a doubt that becomes a repair while one of the same subject is running adds none.
	RunAnswers bool
	// DueForgetsAgain: a doubt that becomes a repair makes it forgotten that one of the same subject, which is done, is to be done again
	// after Z.
	DueForgetsAgain bool

	// NoRest: a lane that a repair gives back may be pushed at once, also if a fan-out may be pushing its newest batch.
	NoRest bool
	// ForeignBelieved: a fan-out that records its verdict believes that it holds the rows of all that have not answered.
	ForeignBelieved bool
	// ForeignUnnoted: it does not, but leaves no doubt either about those that a repair holds.
	ForeignUnnoted bool

	// TwoTransactions: a fan-out records its verdict first, then the lagging peers.
	TwoTransactions bool
	// NoSweeper: nobody looks for leases that are over.
	NoSweeper bool
	// NoAnswerIsAck: a push without an answer counts as acknowledged.
	NoAnswerIsAck bool
	// NoFence: recording does not look whose name is on the lease.
	NoFence bool
}

// model is a [Config] and what follows from it.
type model struct {
	Config

	log  []entry
	seed maphash.Seed
}

// newModel returns an error if the size or the history is out of bounds.
func newModel(c Config) (*model, error) {
	if len(c.History) > maxEntries || c.Peers < 1 || c.Peers > maxPeers || c.Workers < 1 || c.Workers > maxWorkers {
		return nil, fmt.Errorf("history %q, %d peers, %d workers: out of bounds", c.History, c.Peers, c.Workers)
	}
	m := &model{Config: c, seed: maphash.MakeSeed()}
	alive := uint8(0)
	for _, letter := range c.History {
		e := entry{id: 1, deletes: strings.ContainsRune("Dd", letter)}
		if strings.ContainsRune("sd", letter) {
			e.id = 2
		}
		if !strings.ContainsRune("SDsd", letter) || e.deletes && alive != e.id || !e.deletes && alive != 0 && alive != e.id {
			return nil, fmt.Errorf("history %q: the writer cannot do %q there", c.History, letter)
		}
		alive = e.id
		if e.deletes {
			alive = 0
		}
		m.log = append(m.log, e)
	}
	return m, nil
}

// start is the state before anything has happened.
func (m *model) start() state {
	return state{crashes: uint8(m.Crashes), unknowns: uint8(m.Unknowns), expiries: uint8(m.Expiries)} //nolint:gosec // a handful
}

// rank orders mirror images: the least stands for all.
func (m *model) rank(s state) uint64 { return maphash.Comparable(m.seed, s) }

// Report is what [Check] found.
type Report struct {
	States int // that can be reached, mirror images counted once
	Steps  int // between them
	Depth  int // of the farthest state, in steps

	// Violation is what is wrong with the nearest state with which something is, nil if there is none, and Trace a shortest way there.
	Violation error
	Trace     []string
}

// Check looks at every state of a model. It returns an error that wraps [ErrTooLarge] if there are more than limit, which take about 160
// bytes each.
func Check(c Config, ends Ends, limit int) (Report, error) {
	m, err := newModel(c)
	if err != nil {
		return Report{}, err
	}
	q := search[state, step]{
		Start: m.start(), Next: m.next, Canon: m.canon, Check: m.check, Done: m.settled, Forward: step.forward, Ends: ends, Limit: limit,
	}
	found, err := q.Run()
	r := Report{States: found.States, Steps: found.Steps, Depth: found.Depth, Violation: found.Violation}
	for _, s := range found.Trace {
		r.Trace = append(r.Trace, m.tell(s))
	}
	return r, err
}
