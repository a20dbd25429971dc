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
	// Refused requests and credentials that did not count, by their tag.
	Tags map[string]int64 `json:"tags"`
	// Reembed are embeddings that did not fit: a daemon would make its own.
	Reembed int64 `json:"to_reembed"`
	// DuplicateKeys are applied pushes whose Idempotency-Key an applied push
	// had before. Kinds of the same id share a key, so they are not all repeats.
	DuplicateKeys int64 `json:"duplicate_keys"`
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
	keys   keyWindow
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

// tag counts a refusal.
func (c *counters) tag(tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts.Tags == nil {
		c.counts.Tags = map[string]int64{}
	}
	c.counts.Tags[tag]++
}

// add counts the items of an applied push, and its key.
func (c *counters) add(in *push, results map[Result]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Items += int64(in.msg.items())
	if c.counts.Results == nil {
		c.counts.Results = map[Result]int64{}
	}
	for result, n := range results {
		c.counts.Results[result] += int64(n)
	}
	c.counts.Reembed += int64(results[ResultReembed])
	if in.idempotencyKey != "" && c.keys.repeats(in.idempotencyKey) {
		c.counts.DuplicateKeys++
	}
}

// keyWindow remembers the last keysRemembered keys.
type keyWindow struct {
	known map[string]struct{}
	queue []string // a ring
	next  int
}

// keysRemembered bounds what duplicates are looked for in.
const keysRemembered = 100_000

// repeats tells whether a key was seen, and remembers it.
func (w *keyWindow) repeats(key string) bool {
	if _, known := w.known[key]; known {
		return true
	}
	if w.known == nil {
		w.known = map[string]struct{}{}
	}
	w.known[key] = struct{}{}
	if len(w.queue) < keysRemembered {
		w.queue = append(w.queue, key)
		return false
	}
	delete(w.known, w.queue[w.next])
	w.queue[w.next] = key
	w.next = (w.next + 1) % keysRemembered
	return false
}

// Counters returns a copy of the counters.
func (p *Peer) Counters() Counters {
	p.counters.mu.Lock()
	defer p.counters.mu.Unlock()
	out := p.counters.counts
	out.Pushes, out.Results, out.Faults = maps.Clone(out.Pushes), maps.Clone(out.Results), maps.Clone(out.Faults)
	out.Tags = maps.Clone(out.Tags)
	out.TCPAccepts = p.accepts.Load()
	return out
}
