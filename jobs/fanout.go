package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
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
	token := job.Args.FanOut
	need := (w.cfg.AckTimeout + w.cfg.Lease) / 2
	rows, fresh, err := w.store.loadFanOut(ctx, token, need)
	if err != nil {
		return err
	}
	if len(rows.Batches) == 0 {
		return nil // decided, or given to another fan-out
	}
	if !fresh || job.Attempt > 1 {
		if token, err = reclaim(ctx, w.store.pool, token, w.cfg.Lease); err != nil || token == 0 {
			return err
		}
		if rows, _, err = w.store.loadFanOut(ctx, token, 0); err != nil {
			return err
		}
	}

	f, err := w.prepare(ctx, token, rows)
	if err != nil {
		return err
	}
	err = f.run(ctx, job)
	if errors.Is(err, errLeaseLost) {
		w.cfg.Logger.WarnContext(ctx, "fan-out lost its lease and recorded nothing", slog.Int64("fan_out", token))
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return river.JobSnooze(0) // shutting down: the next worker goes on
	}
	return err
}

// fanOut is one run of the job.
type fanOut struct {
	*fanOutWorker

	token    int64
	start    time.Time
	deadline time.Time
	batches  []batch
	trackers []*quorum.Tracker // by batch
	legs     map[string]*leg   // by peer
	skipped  []behind          // lanes of peers that are not pushed: they lag already, or must have another lane first
	decided  bool              // verdicts and stragglers are recorded
}

// leg is what one peer is sent. Its answer belongs to the goroutine of the peer's send until that has returned.
type leg struct {
	peer  string
	lanes []legLane
	pack  shipment

	err error // nil after all of it was acknowledged
}

// legLane is the part of a leg that votes on one batch.
type legLane struct {
	ballot   int // index of batch and tracker
	pickedUp bool
}

// prepare decides who is sent what, leases the lagging lanes that are taken along, and encodes the pushes.
func (w *fanOutWorker) prepare(ctx context.Context, token int64, rows fanOutRows) (*fanOut, error) {
	f := &fanOut{fanOutWorker: w, token: token, start: time.Now(), batches: rows.Batches, legs: map[string]*leg{}}
	f.deadline = f.start.Add(w.cfg.AckTimeout)
	for range f.batches {
		t, err := quorum.NewTracker(w.cfg.Policy, w.cfg.Peers)
		if err != nil {
			return nil, fmt.Errorf("fan-out %d: %w", token, err)
		}
		f.trackers = append(f.trackers, t)
	}

	var want []advance
	for _, p := range w.cfg.Peers {
		for _, b := range f.batches {
			l, lagging := rows.Lagging[peerLane{p, b.Lane}]
			if lagging && l.free() && l.Retry != 0 && l.Behind <= pickUpLimit && !misses(rows.Lagging, p, b.After) {
				want = append(want, advance{peerLane: l.peerLane, Cursor: b.Number})
			}
		}
	}
	var got map[peerLane]lag
	if len(want) > 0 {
		var err error
		if got, err = w.store.pickUp(ctx, token, want); err != nil {
			return nil, err
		}
	}

	for _, p := range w.cfg.Peers {
		l := &leg{peer: p}
		var load []laneRange
		for i, b := range f.batches {
			at := peerLane{p, b.Lane}
			_, lagging := rows.Lagging[at]
			row, pickedUp := got[at]
			if pickedUp && row.Cursor < b.Number-1 {
				load = append(load, laneRange{Lane: b.Lane, Cursor: row.Cursor, Before: b.Number})
			}
			if (lagging && !pickedUp) || misses(rows.Lagging, p, b.After) {
				f.skip(i, p)
				continue
			}
			l.lanes = append(l.lanes, legLane{ballot: i, pickedUp: pickedUp})
		}
		if err := f.packLeg(ctx, l, load); err != nil {
			return nil, err
		}
		if len(l.lanes) > 0 {
			f.legs[p] = l
		}
	}
	return f, nil
}

// misses reports whether the peer does not have a batch yet that must come first.
func misses(lagging map[peerLane]lag, p string, after *batchRef) bool {
	if after == nil {
		return false
	}
	l, ok := lagging[peerLane{p, after.Lane}]
	return ok && l.Cursor < after.Number
}

func (f *fanOut) skip(ballot int, p string) {
	b := f.batches[ballot]
	f.skipped = append(f.skipped, behind{peerLane: peerLane{p, b.Lane}, Cursor: b.Number - 1, PushedTo: b.Number - 1})
	// Cannot fail: the peer is one of the policy's.
	_ = f.trackers[ballot].Record(p, quorum.Fail)
}

// packLeg encodes what a peer is sent: its lanes' batches, each after those that it misses. Peers that are sent the same share the bytes.
func (f *fanOut) packLeg(ctx context.Context, l *leg, load []laneRange) error {
	if len(load) == 0 {
		for _, other := range f.legs {
			if sameBallots(other.lanes, l.lanes) && len(other.pack.batches) == len(l.lanes) {
				l.pack = other.pack
				return nil
			}
		}
	}
	var missed []batch
	if len(load) > 0 {
		var err error
		if missed, err = f.store.loadRanges(ctx, load); err != nil {
			return err
		}
	}
	var batches []batch
	for _, lane := range l.lanes {
		b := f.batches[lane.ballot]
		for _, m := range missed {
			if m.Lane == b.Lane {
				batches = append(batches, m)
			}
		}
		batches = append(batches, b)
	}
	l.pack = pack(batches, f.cfg.SenderID, f.cfg.limits)
	return nil
}

func sameBallots(a, b []legLane) bool {
	return slices.EqualFunc(a, b, func(x, y legLane) bool { return x.ballot == y.ballot })
}

// run sends and records. It returns errLeaseLost if the batches belong to another fan-out by now.
func (f *fanOut) run(ctx context.Context, job *river.Job[FanOutArgs]) error {
	peers := make([]string, 0, len(f.legs))
	for p := range f.legs {
		peers = append(peers, p)
	}
	slices.Sort(peers)
	fault.Hit(fault.FanOutLoaded)
	loop := quorum.FanOut{Deadline: f.deadline, Grace: f.cfg.Grace}
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

func (f *fanOut) send(ctx context.Context, p string) []quorum.Outcome {
	l := f.legs[p]
	l.err = l.pack.send(ctx, f.cfg.FanOut, p)
	outcomes := make([]quorum.Outcome, len(f.trackers))
	for i := range outcomes {
		outcomes[i] = quorum.Fail // a lane that this peer was not sent is recorded already
	}
	for _, lane := range l.lanes {
		outcomes[lane.ballot] = outcome(l.err)
	}
	return outcomes
}

// recordDecided writes the verdicts down while stragglers are still being pushed: their lanes are noted as lagging and leased to this fan-out.
func (f *fanOut) recordDecided(ctx context.Context, stragglers []string) error {
	f.decided = true
	waiting := map[string]bool{}
	var late []behind
	for _, p := range stragglers {
		waiting[p] = true
		for _, lane := range f.legs[p].lanes {
			if b := f.batches[lane.ballot]; !lane.pickedUp { // a picked-up lane has its row
				late = append(late, behind{peerLane: peerLane{p, b.Lane}, Cursor: b.Number - 1, PushedTo: b.Number})
			}
		}
	}
	return f.record(ctx, nil, func(tx pgx.Tx) ([]PeerRetryArgs, error) {
		if err := recordVerdicts(ctx, tx, f.token, f.ballots(ctx), time.Until(f.deadline)); err != nil {
			return nil, err
		}
		if err := f.store.recordStragglers(ctx, tx, f.token, late, time.Until(f.deadline)); err != nil {
			return nil, err
		}
		return f.settle(ctx, tx, func(p string) bool { return !waiting[p] }, heldIfPickedUp)
	}, func() {
		for p := range f.legs {
			if !waiting[p] {
				delete(f.legs, p) // recorded
			}
		}
		f.skipped = nil
		fault.Hit(fault.FanOutDecided)
	})
}

// recordFinished writes down what is left when every push has ended, and completes the job with it.
func (f *fanOut) recordFinished(ctx context.Context, job *river.Job[FanOutArgs]) error {
	return f.record(ctx, job, func(tx pgx.Tx) ([]PeerRetryArgs, error) {
		held := heldAlways
		if !f.decided {
			held = heldIfPickedUp
			if err := recordVerdicts(ctx, tx, f.token, f.ballots(ctx), time.Until(f.deadline)); err != nil {
				return nil, err
			}
		}
		return f.settle(ctx, tx, func(string) bool { return true }, held)
	}, func() {})
}

// record runs one transaction: what do records, the retries that follow from it, and the end of the job if there is one.
func (f *fanOut) record(ctx context.Context, job *river.Job[FanOutArgs], do func(pgx.Tx) ([]PeerRetryArgs, error), after func()) error {
	err := pgx.BeginFunc(ctx, f.store.pool, func(tx pgx.Tx) error {
		retries, err := do(tx)
		if err != nil {
			return err
		}
		if err := insertRetries(ctx, river.ClientFromContext[pgx.Tx](ctx), tx, retries); err != nil {
			return err
		}
		if job == nil {
			return nil
		}
		_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if err != nil {
		return fmt.Errorf("fan-out %d: %w", f.token, err)
	}
	after()
	return nil
}

// ballots turns the trackers into verdicts and logs them.
func (f *fanOut) ballots(ctx context.Context) []ballot {
	list := make([]ballot, len(f.batches))
	for i, b := range f.batches {
		t := f.trackers[i]
		verdict, reason := t.Verdict()
		list[i] = ballot{
			Lane: b.Lane, Number: b.Number, Verdict: string(verdict), Reason: string(reason),
			Acked: t.Acked(), Needed: t.Policy().W, Members: t.Policy().N,
		}
		level := slog.LevelDebug
		if verdict != quorum.VerdictMet {
			level = slog.LevelWarn
		}
		f.cfg.Logger.LogAttrs(ctx, level, "quorum decided",
			slog.Int("lane", int(b.Lane)), slog.Int64("batch", b.Number), slog.Int("entries", len(b.IDs)),
			slog.String("verdict", string(verdict)), slog.String("reason", string(reason)),
			slog.Any("acked", t.Acked()), slog.Int("needed", t.Policy().W), slog.Int("members", t.Policy().N),
			slog.Duration("elapsed", time.Since(f.start)))
	}
	return list
}

// holding says which rows of the table lagging this fan-out holds.
type holding int

const (
	heldIfPickedUp holding = iota // before the verdicts were recorded: those that it took along
	heldAlways                    // after that: the stragglers' too
)

// settle records where the peers of which are now: in step, or behind with a retry to follow.
func (f *fanOut) settle(ctx context.Context, tx pgx.Tx, which func(peer string) bool, held holding) ([]PeerRetryArgs, error) {
	late := f.skipped
	var (
		advances []advance
		releases []release
		errs     = map[string]string{}
	)
	for p, l := range f.legs {
		if !which(p) {
			continue
		}
		class := ""
		if l.err != nil {
			class = string(peer.ClassOf(l.err))
			errs[p] = class
		}
		for _, lane := range l.lanes {
			number := f.batches[lane.ballot].Number
			at := peerLane{p, f.batches[lane.ballot].Lane}
			holds := lane.pickedUp || held == heldAlways
			switch {
			case l.err == nil && holds:
				advances = append(advances, advance{peerLane: at, Cursor: number})
			case l.err == nil: // in step, as before
			case holds:
				releases = append(releases, release{peerLane: at, Class: class, Delay: f.cfg.Retry.retryDelay(1, l.err), Fails: 1})
			default:
				late = append(late, behind{
					peerLane: at, Cursor: number - 1, PushedTo: number,
					Class: class, Delay: f.cfg.Retry.retryDelay(1, l.err), Fails: 1,
				})
			}
		}
	}

	still, err := recordAdvances(ctx, tx, f.token, advances)
	if err != nil {
		return nil, err
	}
	for _, at := range still {
		releases = append(releases, release{peerLane: at})
	}
	retries, err := recordReleases(ctx, tx, f.token, releases)
	if err != nil {
		return nil, err
	}
	more, err := recordBehind(ctx, tx, late)
	if err != nil {
		return nil, err
	}
	if err := recordErrors(ctx, tx, errs); err != nil {
		return nil, err
	}
	return append(retries, more...), nil
}
