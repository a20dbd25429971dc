package refpeer

import (
	"context"
	"errors"
	"fmt"
)

// Bounds of one transaction: how many requests wait for the same commit.
const (
	maxGroup      = 64
	maxGroupItems = maxItems
)

// errClosed means that the peer was closed before a job was taken.
var errClosed = errors.New("the peer is closed")

// job is one request's part of a transaction.
type job struct {
	push     *push // nil: only the nonce is written
	consumed consumed

	done chan struct{} // closed when out and err are set
	out  outcome
	err  error
}

// apply applies a push. On an error nothing of it was applied, its nonce
// included.
func (s *store) apply(p *push) (outcome, error) {
	j := &job{push: p, consumed: p.consumed}
	s.do(j)
	return j.out, j.err
}

// saveNonceAlone writes a consumed nonce of a push that changes nothing else.
func (s *store) saveNonceAlone(c consumed) error {
	if c.row.seq == 0 {
		return nil
	}
	j := &job{consumed: c}
	s.do(j)
	return j.err
}

// do hands a job to the writing goroutine and waits. A job that was taken is
// done whole, whether its client has gone or not.
func (s *store) do(j *job) {
	j.done = make(chan struct{})
	select {
	case s.jobs <- j:
		<-j.done
	case <-s.closing:
		j.err = errClosed
	}
}

// write commits jobs until the store is closed.
func (s *store) write(ctx context.Context) {
	defer close(s.stopped)
	for {
		select {
		case <-s.closing:
			return
		case first := <-s.jobs:
			group := s.gather(first)
			s.commit(ctx, group)
			for _, j := range group {
				close(j.done)
			}
		}
	}
}

// gather takes the jobs that wait already.
func (s *store) gather(first *job) []*job {
	group := []*job{first}
	for items := first.items(); len(group) < maxGroup && items < maxGroupItems; {
		select {
		case next := <-s.jobs:
			group = append(group, next)
			items += next.items()
		default:
			return group
		}
	}
	return group
}

func (j *job) items() int {
	if j.push == nil {
		return 0
	}
	return j.push.msg.items()
}

// commit runs a group in one transaction. If that fails, every job gets one of
// its own, so that none suffers for another.
func (s *store) commit(ctx context.Context, group []*job) {
	lastSeq, lastPush := s.lastSeq, s.lastPush
	err := s.inTx(ctx, func() error {
		for _, j := range group {
			if err := s.run(ctx, j); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	s.lastSeq, s.lastPush = lastSeq, lastPush
	if len(group) == 1 {
		group[0].out, group[0].err = outcome{}, err
		return
	}
	for i := range group {
		s.commit(ctx, group[i:i+1])
	}
}

// run does one job inside the transaction.
func (s *store) run(ctx context.Context, j *job) error {
	if err := s.saveNonce(ctx, j.consumed); err != nil {
		return err
	}
	if j.push == nil {
		return nil
	}
	out, err := s.applyLists(ctx, j.push)
	if err != nil {
		return fmt.Errorf("apply push: %w", err)
	}
	j.out = out
	return nil
}

// inTx runs work in one write transaction and rolls it back if work fails.
func (s *store) inTx(ctx context.Context, work func() error) error {
	if _, err := s.stmts.begin.ExecContext(ctx); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	err := work()
	if err == nil {
		if _, err = s.stmts.commit.ExecContext(ctx); err == nil {
			return nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	if _, rollbackErr := s.stmts.rollback.ExecContext(ctx); rollbackErr != nil {
		err = errors.Join(err, fmt.Errorf("roll back: %w", rollbackErr))
	}
	return err
}
