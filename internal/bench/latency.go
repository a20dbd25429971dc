//go:build unix

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

const (
	// latencyPause is the mean pause between two writes of the latency scenario. Each pause is drawn, so that the writes do not keep
	// step with anybody's polling.
	latencyPause = 20 * time.Millisecond

	// silence is the pause before a write to a system that has gone to sleep: long enough for every poll to be at its slowest.
	silence       = 1500 * time.Millisecond
	silenceWrites = 10 // at most, in a round

	// verdictPatience bounds the wait for one verdict.
	verdictPatience = 30 * time.Second
)

// LatencySample is what one writer saw on an idle system.
type LatencySample struct {
	verdict []time.Duration
	silent  []time.Duration
	store   []time.Duration
	bare    []time.Duration

	Verdict Quantiles `json:"commit_to_verdict"`               // from the answer to the commit until outbox.Await returned
	Silent  Quantiles `json:"commit_to_verdict_after_silence"` // the same, when nothing had been written for 1.5 s
	Store   Quantiles `json:"store_transaction"`               // begin to commit, with outbox.Store
	Bare    Quantiles `json:"bare_transaction"`                // begin to commit, with the memory row alone
}

func (l *LatencySample) summarize() {
	l.Verdict, l.Silent, l.Store, l.Bare = quantiles(l.verdict), quantiles(l.silent), quantiles(l.store), quantiles(l.bare)
}

// latency writes one memory after the other. Each write is followed by a bare one, for comparison under the same conditions; those rows
// are deleted at the end, as no peer gets them.
func (s *stack) latency(ctx context.Context, sample *Sample) error {
	if err := s.warmUp(ctx, writeOurs, oursDone); err != nil {
		return err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var l LatencySample
	var bare []string
	runs := max(1, s.cfg.LatencyRuns/s.cfg.Rounds)
	start := time.Now()
	for i := range runs + min(runs, silenceWrites) {
		pause := latencyPause/2 + rand.N(latencyPause) //nolint:gosec // jitter needs no secrecy
		if i >= runs {
			pause = silence
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
		store, verdict, err := s.timed(ctx, conn.Conn())
		if err != nil {
			return err
		}
		if i >= runs {
			l.silent = append(l.silent, verdict)
			continue
		}
		l.verdict, l.store = append(l.verdict, verdict), append(l.store, store)

		if err := wait(ctx, pause); err != nil {
			return err
		}
		m := s.memories.new()
		begin := time.Now()
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return writeBare(ctx, tx, m) }); err != nil {
			return err
		}
		l.bare = append(l.bare, time.Since(begin))
		bare = append(bare, m.ID)
	}
	l.summarize()
	sample.Writes, sample.WriteSeconds, sample.Quorum = len(l.verdict)+len(l.silent), time.Since(start).Seconds(), &l
	if _, err := conn.Exec(ctx, `delete from memories where id = any ($1)`, bare); err != nil {
		return fmt.Errorf("delete the bare rows: %w", err)
	}
	if err := s.drained(ctx, oursDone); err != nil {
		return err
	}
	return s.verify(ctx)
}

// timed stores one memory and waits for its verdict.
func (s *stack) timed(ctx context.Context, conn *pgx.Conn) (store, verdict time.Duration, err error) {
	m := s.memories.new()
	var stored outbox.Stored
	begin := time.Now()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		stored, err = outbox.Store(ctx, tx, m)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	committed := time.Now()
	ctx, cancel := context.WithTimeout(ctx, verdictPatience)
	defer cancel()
	v, err := outbox.Await(ctx, conn, stored.Entry)
	if err != nil {
		return 0, 0, fmt.Errorf("%w; the worker's log ends: %s", err, s.worker.logEnd())
	}
	done := time.Now()
	if !v.IsMet() {
		return 0, 0, fmt.Errorf("no quorum on an idle system: %v", v.NotMet)
	}
	return committed.Sub(begin), done.Sub(committed), nil
}

// wait returns after d, or with the cause when ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
