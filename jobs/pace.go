package jobs

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pace bounds how fast a peer that comes back is pushed what it missed: so many entries a second, of all retries and snapshots of this process, and at most half of
// the time while others write. Safe for concurrent use; nil has no bound.
//
// It is a bucket that may run into debt: a push begins when the entries of those before it are paid for, however many it has itself, so that no push
// has to be cut for it. Over any time t at most rate·t entries are begun, and one push for each retry that runs.
type pace struct {
	rate float64 // entries a second; 0: no bound

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
	if p == nil || p.rate == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.paid.Before(now) {
		p.paid = now
	}
	p.paid = p.paid.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
}

// pause keeps the next push back for as long as the last one took, but not longer than restMost.
func (p *pace) pause(took time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(min(took, restMost)); p.paid.Before(until) {
		p.paid = until
	}
}

// makeRoom is called after a push of a catch-up that has more to do: if entries are being written, the next one leaves as much time to them as it has taken since
// begun. Catching up as fast as a machine can would slow the healthy peers' quorums down.
func (s *store) makeRoom(ctx context.Context, p *pace, begun time.Time) error {
	var writing bool
	if err := s.pool.QueryRow(ctx, `select exists (select from batches where verdict = 'pending')`).Scan(&writing); err != nil {
		return fmt.Errorf("look for entries that are being written: %w", err)
	}
	if writing {
		p.pause(time.Since(begun))
	}
	return nil
}
