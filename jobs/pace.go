package jobs

import (
	"sync"
	"time"
)

// pace bounds how fast a peer that comes back is pushed what it missed: so many entries a second, of all retries of this process. Safe for concurrent use.
//
// It is a bucket that may run into debt: a push begins when the entries of those before it are paid for, however many it has itself, so that no push
// has to be cut for it. Over any time t at most rate·t entries are begun, and one push for each retry that runs.
type pace struct {
	rate float64 // entries a second

	mu   sync.Mutex
	paid time.Time // when all that was begun is paid for
}

func newPace(rate int) *pace { return &pace{rate: float64(rate)} }

// wait returns how long it is until the next push may begin; 0 if it may now, and for a nil pace.
func (p *pace) wait() time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, time.Until(p.paid))
}

// spend notes that a push of n entries begins.
func (p *pace) spend(n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.paid.Before(now) {
		p.paid = now
	}
	p.paid = p.paid.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
}
