package jobs

import (
	"context"
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

// recordDecided writes the verdicts down while stragglers are still being pushed: their lanes are noted as lagging and leased to this fan-out.
// If nobody is, because the others only waited for somebody else's push and are about to stop, all is recorded at once.
func (f *fanOut) recordDecided(ctx context.Context, stragglers []string) error {
	if !slices.ContainsFunc(stragglers, func(p string) bool { return !f.legs[p].idle.Load() }) {
		return nil
	}
	f.decided = true
	waiting := map[string]bool{}
	var late, foreign []behind
	for _, p := range stragglers {
		waiting[p] = true
		for _, lane := range f.legs[p].lanes {
			if b := f.batches[lane.ballot]; !lane.pickedUp { // a picked-up lane has its row
				late = append(late, behind{peerLane: peerLane{p, b.Lane}, Cursor: b.Number - 1, PushedTo: b.Number})
			}
		}
	}
	err := f.record(ctx, nil, func(tx pgx.Tx) ([]PeerRetryArgs, error) {
		if err := recordVerdicts(ctx, tx, f.token, f.ballots(ctx), time.Until(f.deadline)); err != nil {
			return nil, err
		}
		ours, err := f.store.recordStragglers(ctx, tx, f.token, late, time.Until(f.deadline))
		if err != nil {
			return nil, err
		}
		foreign = slices.DeleteFunc(slices.Clone(late), func(b behind) bool { return slices.Contains(ours, b.peerLane) })
		// No lease says that these are still being pushed, should this worker die.
		var doubts []doubt
		for _, b := range foreign {
			doubts = append(doubts, doubt{b.peerLane, b.Cursor, b.PushedTo})
		}
		if err := f.store.recordDoubts(ctx, tx, doubts); err != nil {
			return nil, err
		}
		return f.settle(ctx, tx, func(p string) bool { return !waiting[p] }, heldIfPickedUp)
	})
	if err != nil {
		return err
	}
	var answered []string
	for p, l := range f.legs {
		l.recorded = !waiting[p]
		if l.recorded {
			answered = append(answered, p)
		}
	}
	f.skipped = nil
	f.foreign = foreign
	f.tellResults(ctx, answered, false)
	fault.Hit(fault.FanOutDecided)
	return nil
}

// recordFinished writes down what is left when every push has ended, and completes the job with it.
func (f *fanOut) recordFinished(ctx context.Context, job *river.Job[FanOutArgs]) error {
	var left []string
	for p, l := range f.legs {
		if !l.recorded {
			left = append(left, p)
		}
	}
	err := f.record(ctx, job, func(tx pgx.Tx) ([]PeerRetryArgs, error) {
		held := heldAlways
		if !f.decided {
			held = heldIfPickedUp
			if err := recordVerdicts(ctx, tx, f.token, f.ballots(ctx), time.Until(f.deadline)); err != nil {
				return nil, err
			}
		}
		return f.settle(ctx, tx, func(string) bool { return true }, held)
	})
	if err != nil {
		return err
	}
	f.tellResults(ctx, left, f.decided)
	f.tellPartial(ctx)
	return nil
}

// record runs one transaction: what do records, the retries that follow from it, and the end of the job if there is one.
func (f *fanOut) record(ctx context.Context, job *river.Job[FanOutArgs], do func(pgx.Tx) ([]PeerRetryArgs, error)) error {
	err := pgx.BeginFunc(ctx, f.store.pool, func(tx pgx.Tx) error {
		retries, err := do(tx)
		if err != nil {
			return err
		}
		if err := insertRetries(ctx, river.ClientFromContext[pgx.Tx](ctx), tx, retries); err != nil {
			return err
		}
		fault.Hit(fault.FanOutRecording)
		if job == nil {
			return nil
		}
		_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		fault.Hit(fault.FanOutCompleting)
		return err
	})
	if err != nil {
		return fmt.Errorf("fan-out %d: %w", f.token, err)
	}
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
		f.count(b, verdict, reason)
		traceVerdict(ctx, b, t)
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
		doubts   []doubt
		advances []advance
		releases []release
		errs     = map[string]string{}
		refused  = map[string][]refusal{}
		setbacks = map[string]setback{}
	)
	for p, l := range f.legs {
		if l.recorded || !which(p) {
			continue
		}
		for _, r := range l.results {
			if !r.ours {
				continue
			}
			class := ""
			if r.err != nil {
				class = string(peer.ClassOf(r.err))
				errs[p] = class
			}
			if len(r.refused) > 0 {
				refused[p] = append(refused[p], r.refused...)
				errs[p] = string(r.refused[0].Class)
			}
			var delay time.Duration
			if r.err != nil {
				delay = f.cfg.Retry.retryDelay(1, r.err)
				if c := peer.ClassOf(r.err); ofPeer(c) {
					delay = max(delay, setbacks[p].delay)
					setbacks[p] = setback{class: c, delay: delay, failures: 1}
				}
			}
			number := f.batches[r.ballot].Number
			at := peerLane{p, f.batches[r.ballot].Lane}
			if r.inDoubt {
				doubts = append(doubts, doubt{at, r.cursor, number})
			}
			holds := r.pickedUp || held == heldAlways
			switch {
			case f.isForeign(at): // pushed again after whoever holds the lane
			case r.err == nil && holds:
				advances = append(advances, advance{peerLane: at, Cursor: number})
			case r.err == nil: // in step, as before
			case holds:
				releases = append(releases, release{peerLane: at, Class: class, Delay: delay, Fails: 1})
			default:
				late = append(late, behind{
					peerLane: at, Cursor: number - 1, PushedTo: number,
					Class: class, Delay: delay, Fails: 1,
				})
			}
		}
	}

	if err := f.store.recordDoubts(ctx, tx, doubts); err != nil {
		return nil, err
	}
	still, err := recordAdvances(ctx, tx, f.token, advances)
	if err != nil {
		return nil, err
	}
	for _, at := range still {
		releases = append(releases, release{peerLane: at.peerLane})
	}
	retries, err := recordReleases(ctx, tx, f.token, releases)
	if err != nil {
		return nil, err
	}
	// One order of locks for all.
	slices.SortFunc(late, func(a, b behind) int { return a.compare(b.peerLane) })
	more, err := recordBehind(ctx, tx, late)
	if err != nil {
		return nil, err
	}
	for p, list := range refused {
		if err := f.cfg.recordRefusals(ctx, tx, p, list); err != nil {
			return nil, err
		}
	}
	if err := recordErrors(ctx, tx, errs); err != nil {
		return nil, err
	}
	return append(retries, more...), recordSetbacks(ctx, tx, setbacks)
}

// isForeign reports whether a straggler's lane was held by somebody else when the verdict was recorded.
func (f *fanOut) isForeign(at peerLane) bool {
	return slices.ContainsFunc(f.foreign, func(b behind) bool { return b.peerLane == at })
}
