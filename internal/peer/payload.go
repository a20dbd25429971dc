package peer

import (
	"errors"
	"io"
	"sync"
)

// payload is a request body that says how much of it was taken, and that gives nothing away once the call is over, because
// net/http may read a body after RoundTrip has returned.
type payload struct {
	mu    sync.Mutex
	data  []byte // what is left
	taken int
	gone  bool
}

// errDetached ends the sending of a body whose call is over. It reaches nobody but the transport.
var errDetached = errors.New("the push is over")

// Read implements [io.Reader].
func (p *payload) Read(into []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone:
		return 0, errDetached
	case len(p.data) == 0:
		return 0, io.EOF
	}
	n := copy(into, p.data)
	p.data = p.data[n:]
	p.taken += n
	return n, nil
}

// Close implements [io.Closer].
func (p *payload) Close() error { return nil }

// whole reports whether the transport has taken all bytes. Before that the peer cannot have all of them.
func (p *payload) whole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.data) == 0
}

// detach ends the use of the caller's bytes and returns how many the transport took until now: at most so many were sent, and no
// more will be.
func (p *payload) detach() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = p.gone || len(p.data) > 0
	p.data = nil
	return p.taken
}
