package refpeer

import (
	"net/http"
	"sync"
	"time"
)

// turns tells whoever waits that a push was applied. The zero value is ready.
// Safe for concurrent use.
type turns struct {
	mu   sync.Mutex
	next chan struct{} // closed when a push is applied; nil: nobody waits
}

// another is closed when the next push is applied.
func (t *turns) another() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = make(chan struct{})
	}
	return t.next
}

func (t *turns) taken() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil {
		close(t.next)
		t.next = nil
	}
}

// letPass waits until another push was applied, d at most, whether the client
// still waits or not. false means that the peer ended before.
func (p *Peer) letPass(w http.ResponseWriter, d time.Duration) bool {
	p.moveDeadlines(w, d)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.turns.another():
	case <-timer.C:
	case <-p.closing:
		return false
	}
	return true
}
