package jobs

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/internal/span"
	"quorumbox/quorum"
)

// pickUpLimit is how far a lagging peer may be behind for a fan-out to take it along from its cursor. Beyond that its retry brings it closer.
const pickUpLimit = 200

// fanOutWorker works the job fan_out.
type fanOutWorker struct {
	river.WorkerDefaults[FanOutArgs]

	cfg   Config
	store *store
}

// NextRetry is short: what fails here is the database, and the batches wait.
func (w *fanOutWorker) NextRetry(*river.Job[FanOutArgs]) time.Time {
	return time.Now().Add(time.Second)
}

// Work pushes the batches of one fan-out to all peers and records what became of it, in the transaction that completes the job.
func (w *fanOutWorker) Work(ctx context.Context, job *river.Job[FanOutArgs]) error {
	fault.Hit(fault.FanOutTaken)
	taken := time.Now()
	token := job.Args.FanOut
	need := (w.cfg.longestAck() + w.cfg.Lease) / 2
	rows, fresh, err := w.store.loadFanOut(ctx, token, need)
	if err != nil {
		return err
	}
	if len(rows.Batches) == 0 {
		return nil // decided, or given to another fan-out
	}
	if sent := begun(job.Attempt > 1); !fresh || sent == maybeSent {
		if token, err = w.store.reclaimNow(ctx, token, sent, w.cfg.Peers); err != nil || token == 0 {
			return err
		}
		fault.Hit(fault.FanOutReclaimed)
		if rows, _, err = w.store.loadFanOut(ctx, token, 0); err != nil {
			return err
		}
	}

	ctx, traced := w.trace(ctx, job.Metadata, taken, token, rows.Batches)
	defer traced.End()
	f, err := w.prepare(ctx, token, rows)
	if err != nil {
		span.Fail(traced, "not prepared")
		return err
	}
	if err = f.run(ctx, job); err != nil {
		span.Fail(traced, "not recorded")
	}
	if errors.Is(err, errLeaseLost) {
		w.cfg.Logger.WarnContext(ctx, "fan-out lost its lease and recorded nothing", slog.Int64("fan_out", token))
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return w.leave(ctx, token)
	}
	return err
}

// leave hands a fan-out that was stopped half-way over to the next worker, and the lagging lanes that it held. A snooze costs no attempt, by which the next
// run would know that something may have been sent: so it is written down here.
func (w *fanOutWorker) leave(ctx context.Context, token int64) error {
	ctx, cancel := leaving(ctx)
	defer cancel()
	if err := w.store.doubtFanOut(ctx, token, w.cfg.Peers); err != nil {
		return err
	}
	if err := w.store.handBack(ctx, token); err != nil {
		return err
	}
	return river.JobSnooze(0)
}

// fanOut is one run of the job.
type fanOut struct {
	*fanOutWorker

	token    int64
	start    time.Time
	deadline time.Time // of all batches: the relay gives a fan-out those of one rule
	batches  []batch
	trackers []*quorum.Tracker // by batch
	legs     map[string]*leg   // by peer; not changed once the sends run
	skipped  []behind          // lanes that a peer in step is not pushed, because it must have another lane first
	foreign  []behind          // stragglers' lanes that somebody else holds: that one records where they are
	enough   chan struct{}     // closed when every vote is decided: nobody has to be waited for any more
	decided  bool              // verdicts and stragglers are recorded
}

// run sends and records. It returns errLeaseLost if the batches belong to another fan-out by now.
func (f *fanOut) run(ctx context.Context, job *river.Job[FanOutArgs]) error {
	peers := make([]string, 0, len(f.legs))
	for p := range f.legs {
		peers = append(peers, p)
	}
	slices.Sort(peers)
	fault.Hit(fault.FanOutLoaded)
	f.announce(ctx)
	loop := quorum.FanOut{Deadline: f.deadline, Grace: f.cfg.Grace, Enough: func() { close(f.enough) }}
	err := loop.Run(ctx, peers, f.trackers, f.send, func(ctx context.Context, stragglers []string) error {
		return f.recordDecided(ctx, stragglers)
	})
	if err != nil {
		return err
	}
	fault.Hit(fault.FanOutAcked)
	if err := f.recordFinished(ctx, job); err != nil {
		return err
	}
	fault.Hit(fault.FanOutRecorded)
	return nil
}
