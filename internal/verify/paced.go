package verify

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"

	"quorumbox/internal/peer"
)

const (
	// patience is how long a request is tried again while the peer is away or busy.
	patience = time.Minute

	// longestPause bounds the pause that a peer can ask for.
	longestPause = 30 * time.Second
)

// paced asks a peer, not faster than allowed, and again while it is away.
type paced struct {
	reader Reader
	pace   *pace
	count  *int64 // of requests
	step   func() // called with each
}

// pace spreads requests evenly.
type pace struct {
	every time.Duration
	next  time.Time
}

func newPace(rate float64) *pace { return &pace{every: time.Duration(float64(time.Second) / rate)} }

// wait returns when the next request may be made.
func (p *pace) wait(ctx context.Context) error {
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	pause := p.next.Sub(now)
	p.next = p.next.Add(p.every)
	return sleep(ctx, pause)
}

// sleep waits for d, or for ctx, whose cause it returns then.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 && ctx.Err() == nil {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask makes a request until the peer answers it, for a minute or so, or refuses it.
func ask[T any](ctx context.Context, p *paced, request func(context.Context) (T, error)) (T, error) {
	again := backoff.NewExponentialBackOff(backoff.WithInitialInterval(250*time.Millisecond), backoff.WithMaxElapsedTime(patience))
	return backoff.RetryWithData(func() (T, error) {
		if err := p.pace.wait(ctx); err != nil {
			return *new(T), backoff.Permanent(err)
		}
		*p.count++
		p.step()
		answer, err := request(ctx)
		e, ok := errors.AsType[*peer.Error](err)
		switch {
		case err == nil:
			return answer, nil
		case !ok || ctx.Err() != nil || !passes(e):
			return answer, backoff.Permanent(err)
		}
		if pauseErr := sleep(ctx, min(e.RetryAfter, longestPause)); pauseErr != nil {
			return answer, backoff.Permanent(pauseErr)
		}
		return answer, err
	}, backoff.WithContext(again, ctx))
}

// passes reports whether the same request may be answered later.
func passes(e *peer.Error) bool {
	switch e.Class {
	case peer.ClassRefusedConnection, peer.ClassUnreachable, peer.ClassConnectTimeout, peer.ClassTimeout, peer.ClassConnectionLost,
		peer.ClassRateLimited, peer.ClassUnavailable, peer.ClassServerTimeout, peer.ClassServerError, peer.ClassQuota:
		return true
	default:
		return false
	}
}

// refused reports whether the peer answered that it will not, or cannot, answer such a question.
func refused(err error) bool {
	e, ok := errors.AsType[*peer.Error](err)
	if !ok {
		return false
	}
	switch e.Class {
	case peer.ClassForbidden, peer.ClassNotFound, peer.ClassBadRequest:
		return true
	case peer.ClassMalformedAnswer: // a list of other things, or a longer one than is read
		return true
	default:
		return false
	}
}

// pager walks a list page by page.
type pager[T any] struct {
	read  func(ctx context.Context, page peer.Page) ([]T, error)
	key   func(T) string
	page  peer.Page
	first string // key of the first element of the page before
}

// errRepeats means that a peer gives the same page again, whatever the offset.
var errRepeats = errors.New("the peer does not page through the list")

// next returns the next page and moves on. A page that is longer than a client reads is asked for in smaller parts.
func (g *pager[T]) next(ctx context.Context, p *paced) ([]T, error) {
	for {
		list, err := ask(ctx, p, func(ctx context.Context) ([]T, error) { return g.read(ctx, g.page) })
		if errors.Is(err, peer.ErrLongAnswer) && g.page.Limit > 1 {
			g.page.Limit /= 2
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			if first := g.key(list[0]); g.page.Offset > 0 && first == g.first {
				return nil, errRepeats
			}
			g.first = g.key(list[0])
		}
		g.page.Offset += g.page.Limit
		return list, nil
	}
}
