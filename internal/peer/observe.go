package peer

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// Attempt is what [Config.Observe] is told about one attempt. It holds nothing of the payload and nothing that the peer sent.
type Attempt struct {
	// Peer is [Client.ID].
	Peer string
	// Class is that of the result, [ClassOK] for an acknowledgement.
	Class Class
	// Status is the HTTP status of the answer, 0 if there was none.
	Status int
	// Elapsed is how long the attempt took, from before the signature until the answer was judged.
	Elapsed time.Duration
	// Bytes is the length of the body, sent or not.
	Bytes int
	// Retry means that this is the second attempt of a push.
	Retry bool
	// Connected means that there was a connection to send on. It is false for what was refused on this side and for
	// connections that could not be made.
	Connected bool
	// Reused means that the connection had carried a request before.
	Reused bool
}

// turn says which attempt of a push it is.
type turn uint8

const (
	firstTurn turn = iota
	retryTurn
)

// attempt is post, traced and observed. Without a tracer and an observer it costs nothing.
func (c *Client) attempt(ctx context.Context, req Request, which turn) *Error {
	ctx, s := c.traced(ctx, req, which)
	status, e := c.observed(ctx, req, which)
	endTraced(s, status, e)
	return e
}

// observed is post, observed.
func (c *Client) observed(ctx context.Context, req Request, which turn) (status int, e *Error) {
	if c.observe == nil {
		return c.post(ctx, req)
	}
	// Atomic, because net/http does not promise in which goroutine it calls.
	var connected, reused atomic.Bool
	start := time.Now()
	status, e = c.post(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			reused.Store(info.Reused)
		},
	}), req)
	seen := Attempt{
		Peer: c.id, Class: ClassOK, Status: status, Elapsed: time.Since(start), Bytes: len(req.Body),
		Retry: which == retryTurn, Connected: connected.Load(), Reused: reused.Load(),
	}
	if e != nil {
		seen.Class = e.Class
	}
	c.observe(seen)
	return status, e
}
