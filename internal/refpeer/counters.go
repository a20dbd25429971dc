package refpeer

import (
	"maps"
	"strconv"
	"sync"
)

// Counters are what a peer counted since it was opened.
type Counters struct {
	// Pushes by status; "cut" are those whose connection was cut.
	Pushes map[string]int64 `json:"pushes"`
	// Items of the lists of applied pushes, and what became of them.
	Items   int64            `json:"items"`
	Results map[Result]int64 `json:"results"`
	// Faults that fired, by mode.
	Faults map[Mode]int64 `json:"faults"`

	ConcurrentPushes    int64 `json:"concurrent_pushes"`
	MaxConcurrentPushes int64 `json:"max_concurrent_pushes"`
	// TCPAccepts are the connections that [Peer.Serve] accepted.
	TCPAccepts int64 `json:"tcp_accepts"`
}

// counters is safe for concurrent use.
type counters struct {
	mu     sync.Mutex
	counts Counters
}

func (c *counters) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.ConcurrentPushes++
	c.counts.MaxConcurrentPushes = max(c.counts.MaxConcurrentPushes, c.counts.ConcurrentPushes)
}

// end counts a push. Status 0 is a cut connection.
func (c *counters) end(status int, fault Mode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.ConcurrentPushes--
	if c.counts.Pushes == nil {
		c.counts.Pushes, c.counts.Faults = map[string]int64{}, map[Mode]int64{}
	}
	key := "cut"
	if status != 0 {
		key = strconv.Itoa(status)
	}
	c.counts.Pushes[key]++
	if fault != "" {
		c.counts.Faults[fault]++
	}
}

// add counts the items of an applied push.
func (c *counters) add(items int, results map[Result]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Items += int64(items)
	if c.counts.Results == nil {
		c.counts.Results = map[Result]int64{}
	}
	for result, n := range results {
		c.counts.Results[result] += int64(n)
	}
}

// Counters returns a copy of the counters.
func (p *Peer) Counters() Counters {
	p.counters.mu.Lock()
	defer p.counters.mu.Unlock()
	out := p.counters.counts
	out.Pushes, out.Results, out.Faults = maps.Clone(out.Pushes), maps.Clone(out.Results), maps.Clone(out.Faults)
	out.TCPAccepts = p.accepts.Load()
	return out
}
