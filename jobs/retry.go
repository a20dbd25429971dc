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

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
)

const (
	// retryLease is how long a retry holds its lanes at a time, and renewEvery how often it asks for more while a push is under way: short,
	// because the lease of a killed worker has to run out before another one goes on.
	retryLease = 3 * time.Second
	renewEvery = time.Second

	// heldSnooze is the most that a retry waits for a lane that somebody else holds.
	heldSnooze = time.Second

	// pausedSnooze is how long a retry stays away that finds its peer paused. Its queue is, too, so that it comes when that is resumed.
	pausedSnooze = time.Second

	// probeMargin is how much longer than the push timeout the other lanes of a failed peer wait for the one that probes it.
	probeMargin = time.Second

	// handOverAfter is after how many pushes a retry leaves a lane that is almost in step to the next fan-out, which takes the rest along:
	// under load a lane always has a batch that the retry does not have yet.
	handOverAfter = 3
	// patience is how many failures in a row it takes until an item that needs another one to be there is refused for good.
	patience = 3

	// restMost is how long a retry keeps its lanes while the peer's catch-up rate makes it rest; a part of the lease.
	restMost = retryLease / 3

	// handOverSnooze is how long a fan-out has for that before the retry goes on itself.
	handOverSnooze = 200 * time.Millisecond
)

// errPushTimeout is why a push to a lagging peer is given up.
var errPushTimeout = fmt.Errorf("no answer within the push timeout: %w", context.DeadlineExceeded)

// peerRetryWorker works the job peer_retry.
type peerRetryWorker struct {
	river.WorkerDefaults[PeerRetryArgs]

	cfg   Config
	store *store
}

// NextRetry is short: what fails here is the database.
func (w *peerRetryWorker) NextRetry(*river.Job[PeerRetryArgs]) time.Time {
	return time.Now().Add(time.Second)
}

// Work moves the cursor of a lagging lane forward, and those of the peer's other free lanes with it, push by push, until the peer is in step.
// A failure of the peer snoozes the job, which costs no attempt. A job whose row is gone or carries another retry is done.
func (w *peerRetryWorker) Work(ctx context.Context, job *river.Job[PeerRetryArgs]) error {
	own, token, lanes, err := w.store.claimLanes(ctx, job.Args, retryLease, w.cfg.PushTimeout+probeMargin)
	if err != nil {
		return err
	}
	if own == nil {
		return nil
	}
	if token == 0 {
		wait := max(own.Wait, time.Millisecond)
		if own.Held {
			wait = min(wait, heldSnooze)
		}
		if own.Paused {
			wait = max(wait, pausedSnooze)
		}
		return river.JobSnooze(wait)
	}
	fault.Hit(fault.RetryClaimed)
	r := &retry{peerRetryWorker: w, peer: job.Args.Peer, token: token, lanes: lanes, probing: ofPeer(own.Class)}
	snooze, err := r.run(ctx)
	switch {
	case errors.Is(err, errLeaseLost):
		w.cfg.Logger.WarnContext(ctx, "retry lost its lease", slog.String("peer", job.Args.Peer), slog.Int("lane", int(job.Args.Lane)))
		return river.JobSnooze(heldSnooze)
	case err != nil && ctx.Err() != nil:
		return w.leave(ctx, token)
	case err != nil:
		return err
	case r.holds(job.Args.Lane):
		return river.JobSnooze(snooze)
	}
	return nil
}

// leave hands the lanes of a retry that was stopped half-way over to the next worker.
func (w *peerRetryWorker) leave(ctx context.Context, token int64) error {
	ctx, cancel := leaving(ctx)
	defer cancel()
	if err := w.store.handBack(ctx, token); err != nil {
		return err
	}
	return river.JobSnooze(0)
}

// retry is one run of the job: it holds the lanes under token.
type retry struct {
	*peerRetryWorker

	peer  string
	token int64
	lanes []lag // those of which the peer is not in step yet

	probing bool // the peer failed, and has not answered since
	acked   bool // it has acknowledged something in this run
	paused  bool // an operator has paused the peer since the last round

	entangled bool // lanes waited for each other in the last round: no fan-out can take one of them along
}

func (r *retry) holds(lane int16) bool {
	return slices.ContainsFunc(r.lanes, func(l lag) bool { return l.Lane == lane })
}

// run pushes until the peer is in step (no lanes are left), a push fails, or the time of one job is over. Lanes that are left have been given
// back; snooze says when to come again.
func (r *retry) run(ctx context.Context) (snooze time.Duration, err error) {
	until := time.Now().Add(r.cfg.RetryBudget)
	recovered := slices.ContainsFunc(r.lanes, func(l lag) bool { return l.Failures > 0 })
	for round := 1; ; round++ {
		if err := r.letGo(ctx); err != nil {
			return 0, err
		}
		if wait := r.cfg.paces[r.peer].wait(); wait > restMost {
			return wait, r.giveBack(ctx)
		} else if err := rest(ctx, wait); err != nil {
			return 0, err
		}
		begun := time.Now()
		batches, err := r.next(ctx)
		switch {
		case err != nil:
			return 0, err
		case r.paused:
			return pausedSnooze, r.giveBack(ctx)
		case len(batches) == 0 && r.probing: // there is nothing to probe with in this lane
			r.probing = false
			if err := r.claimMore(ctx); err != nil {
				return 0, err
			}
			continue
		case len(r.lanes) == 0:
			return 0, nil
		case len(batches) == 0: // each lane waits for another one, or for the fan-out of its newest batch
			return handOverSnooze, r.giveBack(ctx)
		}
		d, err := r.push(ctx, batches, until)
		r.acked = r.acked || d.acked
		switch {
		case err != nil:
			return 0, err
		case d.err != nil && ctx.Err() != nil:
			return 0, d.err // the lanes are handed back, and what was pushed is in doubt
		case d.err != nil:
			return r.failed(ctx, d)
		}
		if err := r.doubt(ctx, d); err != nil {
			return 0, err
		}
		fault.Hit(fault.RetryAcked)
		if err := r.advance(ctx, batches, d.refused); err != nil {
			return 0, err
		}
		fault.Hit(fault.RetryRecorded)
		if err := r.goOn(ctx); err != nil {
			return 0, err
		}
		fault.Hit(fault.RetryClaimedMore)
		switch {
		case len(r.lanes) == 0:
			level := slog.LevelDebug
			if recovered {
				level = slog.LevelInfo
			}
			r.cfg.Logger.LogAttrs(ctx, level, "lagging peer is in step again", slog.String("peer", r.peer))
			return 0, nil
		case round >= handOverAfter && r.behind() <= pickUpLimit && !r.entangled:
			return handOverSnooze, r.giveBack(ctx)
		}
		if r.behind() > pickUpLimit {
			if err := r.store.makeRoom(ctx, r.cfg.paces[r.peer], begun); err != nil {
				return 0, err
			}
		}
		if time.Now().After(until) {
			return 0, r.giveBack(ctx)
		}
	}
}

// rest returns after d, or with the cause when ctx ends first.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// goOn takes the peer's other lanes along after a push that was acknowledged.
func (r *retry) goOn(ctx context.Context) error {
	if r.probing {
		r.probing = false
		if err := r.store.answered(ctx, r.peer); err != nil {
			return err
		}
	}
	return r.claimMore(ctx)
}

func (r *retry) claimMore(ctx context.Context) error {
	more, err := r.store.claimMore(ctx, r.token, r.peer, retryLease)
	r.lanes = append(r.lanes, more...)
	return err
}

// doubt records that what was pushed may still arrive later. It must be called before anything else is recorded or pushed.
func (r *retry) doubt(ctx context.Context, d delivery) error {
	if !d.inDoubt {
		return nil
	}
	return r.store.doubtHeld(ctx, r.store.pool, r.token)
}

// renewError is why a push was not begun or was given up although the peer did nothing wrong: the lease could not be noted or renewed.
type renewError struct{ err error }

func (e *renewError) Error() string { return e.err.Error() }
func (e *renewError) Unwrap() error { return e.err }

// push sends the batches. How far it goes is noted before the first byte, and the lease is kept alive meanwhile; if that is lost, the push is
// given up with a [*renewError].
func (r *retry) push(ctx context.Context, batches []batch, until time.Time) (delivery, error) {
	without, err := r.store.refusedOf(ctx, r.peer, batches)
	if err != nil {
		return delivery{}, err
	}
	upTo := r.held()
	for _, end := range r.ends(batches) {
		i := slices.IndexFunc(upTo, func(a advance) bool { return a.peerLane == end.peerLane })
		upTo[i] = end
	}
	if err := r.store.announce(ctx, r.token, upTo, retryLease); err != nil {
		return delivery{}, &renewError{err}
	}
	fault.Hit(fault.RetryAnnounced)
	entries := 0
	for _, b := range batches {
		entries += len(b.IDs)
	}
	r.cfg.paces[r.peer].spend(entries)
	jobCtx := ctx
	ctx, stop := r.store.keepLease(ctx, r.token, upTo)
	defer stop()
	how := isolation{parts: r.cfg.bounded(), until: until, patient: r.patient(), repeats: pushRepeats, suspicions: r.suspicions(batches), acked: r.acked}
	ctx, traced := r.trace(ctx, batches)
	d := pack(batches, without, r.cfg.SenderID, r.cfg.limits).send(ctx, how.parts, r.peer, how)
	endDelivery(traced, d)
	if d.err != nil && ctx.Err() != nil && jobCtx.Err() == nil {
		return delivery{}, &renewError{context.Cause(ctx)} // not the peer's doing
	}
	return d, nil
}

// failures is how often the peer has failed in a row.
func (r *retry) failures() int {
	n := 0
	for _, l := range r.lanes {
		n = max(n, l.Failures)
	}
	return n
}

// suspicions is how often pushes from where a lane of the batches is have broken the peer.
func (r *retry) suspicions(batches []batch) int {
	n := 0
	for _, l := range r.lanes {
		if slices.ContainsFunc(batches, func(b batch) bool { return b.Lane == l.Lane }) {
			n = max(n, l.Suspicions)
		}
	}
	return n
}

// patient reports whether an item that needs another one may still be waited for: no lane was refused one too often. How often the peer was not there at all
// says nothing about that.
func (r *retry) patient() bool {
	return !slices.ContainsFunc(r.lanes, func(l lag) bool { return l.Failures >= patience && !ofPeer(l.Class) })
}

// next loads the batches that come next, without those that must wait for a lane of the peer that somebody else holds.
func (r *retry) next(ctx context.Context) ([]batch, error) {
	if len(r.lanes) == 0 {
		return nil, nil
	}
	cursors, err := r.store.cursors(ctx, r.peer)
	if err != nil {
		return nil, err
	}
	for _, l := range cursors {
		if r.paused = l.Paused; r.paused {
			return nil, nil
		}
	}
	lanes := slices.DeleteFunc(slices.Clone(r.lanes), func(l lag) bool { return l.AtHead })
	batches, entangled, err := r.store.loadNext(ctx, lanes, cursors, r.cfg.limits)
	r.entangled = entangled
	return batches, err
}

// held is how far each held lane may have been pushed already.
func (r *retry) held() []advance {
	list := make([]advance, len(r.lanes))
	for i, l := range r.lanes {
		list[i] = advance{peerLane: l.peerLane, Cursor: l.PushedTo}
	}
	return list
}

// ends is the last one of the batches of each lane, by lane.
func (r *retry) ends(batches []batch) []advance {
	last := map[int16]int64{}
	for _, b := range batches {
		last[b.Lane] = b.Number
	}
	list := make([]advance, 0, len(last))
	for lane, n := range last {
		list = append(list, advance{peerLane: peerLane{r.peer, lane}, Cursor: n})
	}
	slices.SortFunc(list, func(a, b advance) int { return int(a.Lane) - int(b.Lane) })
	return list
}

// letGo ends the lanes in which nothing is missing: a peer that was absent has a row for each lane, wherever it stands.
func (r *retry) letGo(ctx context.Context) error {
	var atHead []advance
	for _, l := range r.lanes {
		if l.Behind <= 0 || l.AtHead {
			atHead = append(atHead, advance{peerLane: l.peerLane, Cursor: l.Cursor})
		}
	}
	if len(atHead) == 0 {
		return nil
	}
	return r.record(ctx, atHead, nil, nil)
}

// advance records the cursors after acknowledged batches, and which of their entries the peer refuses. Lanes that are in step are let go of.
func (r *retry) advance(ctx context.Context, acked []batch, refused []refusal) error {
	got := map[int16]int64{}
	for _, b := range acked {
		got[b.Lane] += int64(len(b.IDs))
	}
	return r.record(ctx, r.ends(acked), got, refused)
}

// record moves the lanes' cursors; got is how many entries that is, by lane.
func (r *retry) record(ctx context.Context, list []advance, got map[int16]int64, refused []refusal) error {
	var still []position
	err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) (err error) {
		if still, err = recordAdvances(ctx, tx, r.token, list); err != nil {
			return err
		}
		fault.Hit(fault.RetryRecording)
		if len(refused) > 0 {
			if err := clearSuspicions(ctx, tx, r.token); err != nil {
				return err
			}
		}
		return r.cfg.recordRefusals(ctx, tx, r.peer, refused)
	})
	if err != nil {
		return fmt.Errorf("retry of %s: %w", r.peer, err)
	}
	r.cfg.tellRefusals(ctx, r.peer, refused)
	entries := int64(0)
	for _, n := range got {
		entries += n
	}
	r.cfg.Metrics.CaughtUp(r.peer, int(entries))
	r.cfg.Logger.DebugContext(ctx, "peer caught up some",
		slog.String("peer", r.peer), slog.Int("lanes", len(list)), slog.Int("lanes_in_step", len(list)-len(still)))

	for _, a := range list {
		i := slices.IndexFunc(r.lanes, func(l lag) bool { return l.Lane == a.Lane })
		j := slices.IndexFunc(still, func(p position) bool { return p.Lane == a.Lane })
		if j < 0 {
			r.lanes = slices.Delete(r.lanes, i, i+1)
			continue
		}
		l := &r.lanes[i]
		l.Cursor, l.PushedTo, l.Failures, l.Suspicions = a.Cursor, max(l.PushedTo, a.Cursor), 0, 0
		l.AtHead = !still[j].Newer
		l.Behind = max(l.Behind-got[a.Lane], 1) // at least what came after the claim
	}
	return nil
}

// failed gives the lanes back until the peer is tried again. What is known of the shipment although it failed is recorded first: the batches that a
// quota let pass, and the refused entries that were found before there was no time left to find the others.
func (r *retry) failed(ctx context.Context, d delivery) (time.Duration, error) {
	fault.Hit(fault.RetryFailed)
	if err := r.doubt(ctx, d); err != nil {
		return 0, err
	}
	if acked := d.has(); len(acked) > 0 {
		if err := r.advance(ctx, acked, nil); err != nil {
			return 0, err
		}
	}
	class := peer.ClassOf(d.err)
	if len(d.refused) > 0 {
		if err := r.record(ctx, nil, nil, d.refused); err != nil {
			return 0, err
		}
		if class.Refusal() {
			return 0, r.giveBack(ctx)
		}
	}
	failures := r.failures() + 1
	delay := r.cfg.Retry.retryDelay(failures, d.err)
	var back setback
	if ofPeer(class) {
		back = setback{class: class, delay: delay, failures: failures}
	}
	level := slog.LevelInfo
	if class.Configuration() || class.Refusal() {
		level = slog.LevelError
	}
	r.cfg.Logger.LogAttrs(ctx, level, "push to lagging peer not acknowledged",
		slog.String("peer", r.peer), slog.String("class", string(class)), slog.String("hint", class.Hint()),
		slog.Int("failures", failures), slog.Duration("next_in", delay))
	return delay, r.giveBackAfter(ctx, release{Class: string(class), Delay: delay, Fails: 1}, back)
}

// giveBack ends the leases of all lanes that are left; they may be claimed again at once.
func (r *retry) giveBack(ctx context.Context) error {
	return r.giveBackAfter(ctx, release{}, setback{})
}

// giveBackAfter is giveBack after a failure: of the lanes as each says, and of the peer if it has a class.
func (r *retry) giveBackAfter(ctx context.Context, each release, whole setback) error {
	list := make([]release, len(r.lanes))
	for i, l := range r.lanes {
		list[i] = each
		list[i].peerLane = l.peerLane
	}
	err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
		if _, err := recordReleases(ctx, tx, r.token, list); err != nil {
			return err
		}
		if whole.class != "" {
			if err := setBack(ctx, tx, r.peer, whole); err != nil {
				return err
			}
		}
		fault.Hit(fault.RetryReleasing)
		if each.Class == "" {
			return nil
		}
		return recordErrors(ctx, tx, map[string]string{r.peer: each.Class})
	})
	if err != nil {
		return fmt.Errorf("retry of %s: %w", r.peer, err)
	}
	fault.Hit(fault.RetryReleased)
	return nil
}

// behind is how many entries the peer missed of the lanes when they were claimed, less what it got since.
func (r *retry) behind() (n int64) {
	for _, l := range r.lanes {
		n += max(l.Behind, 0)
	}
	return n
}
