package peer

import (
	"context"
	"time"
)

// RetryPause is the time between the first attempt of a push and its single retry. It is the reference sender's.
const RetryPause = 250 * time.Millisecond

// Report says how a push went beside its result.
type Report struct {
	// Attempts is the number of requests made: 1 or 2, 0 if nothing could be sent.
	Attempts int
	// InDoubt means that one of the attempts was [Unknown]. It can be so although the push was acknowledged: the peer may
	// still apply the first request after the second.
	InDoubt bool
}

// Push sends the push and, if that fails or its fate is unknown, sends the same body once more after [RetryPause] with a nonce of
// its own. It returns nil if either attempt was truly acknowledged, else an [*Error] with the class of the last attempt and a
// text that names both.
//
// There is no retry where it cannot help: after an id drift or another complete 2xx answer, after a refusal made on this side,
// when the peer asked for a time to wait, and when ctx ends before the pause does.
func (c *Client) Push(ctx context.Context, req Request) error {
	_, err := c.PushReport(ctx, req)
	return err
}

// PushReport is [Client.Push] with a report for those who keep count.
func (c *Client) PushReport(ctx context.Context, req Request) (Report, error) {
	var report Report
	first := c.attempt(ctx, req, firstTurn)
	report.add(first)
	if first == nil {
		return report, nil
	}
	if !first.again() || !pause(ctx, RetryPause) {
		return report, first
	}
	second := c.attempt(ctx, req, retryTurn)
	report.add(second)
	if second == nil {
		return report, nil
	}
	second.first = first
	return report, second
}

func (r *Report) add(e *Error) {
	if e != nil && e.Status == 0 && e.local() {
		return
	}
	r.Attempts++
	if e != nil && e.Outcome() == Unknown {
		r.InDoubt = true
	}
}

// local reports whether the refusal was made on this side.
func (e *Error) local() bool {
	switch e.Class {
	case ClassInvalidRequest, ClassBlocked:
		return true
	case ClassTooLarge:
		return e.Status == 0
	default:
		return false
	}
}

// again reports whether a second attempt right after this one is worth its while.
func (e *Error) again() bool {
	if e.RetryAfter > 0 || e.local() {
		return false
	}
	switch e.Class {
	case ClassIDDrift, ClassSkipped, ClassUnsupported, ClassCanceled:
		return false
	case ClassQuota:
		return e.Status >= 300
	default:
		return true
	}
}

// pause waits for d and reports whether ctx goes on after it. It does not wait if the deadline comes first.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
