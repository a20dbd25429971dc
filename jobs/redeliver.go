package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

// redeliveries is how many jobs for refused entries of one peer there are at a time. A peer can refuse thousands.
const redeliveries = 20

// redeliverWorker works the job redeliver.
type redeliverWorker struct {
	river.WorkerDefaults[RedeliverArgs]

	cfg   Config
	store *store
}

// NextRetry is short: what fails here is the database.
func (w *redeliverWorker) NextRetry(*river.Job[RedeliverArgs]) time.Time {
	return time.Now().Add(time.Second)
}

// Work pushes a refused entry alone. It holds the lane meanwhile, as a retry does, so that nothing else of the lane is on its way to the peer. An
// entry that later ones have superseded is not sent any more. Whatever comes of it is written down with the time of the next attempt; the
// sweeper makes the next job.
func (w *redeliverWorker) Work(ctx context.Context, job *river.Job[RedeliverArgs]) error {
	r := &redelivery{redeliverWorker: w, args: job.Args}
	if ok, err := r.claim(ctx); err != nil || !ok {
		return err
	}
	fault.Hit(fault.RedeliverClaimed)
	if err := r.store.awaitHead(ctx, &r.hold); err != nil {
		return err
	}
	d := r.push(ctx)
	fault.Hit(fault.RedeliverPushed)
	// What the peer did is written down also if the worker is told to stop meanwhile.
	ctx, cancel := leaving(ctx)
	defer cancel()
	return r.record(ctx, d)
}

// redelivery is one run of the job.
type redelivery struct {
	*redeliverWorker

	args     RedeliverArgs
	at       peerLane
	hold     hold
	attempts int
	class    peer.Class // that it was refused with
	entries  []entry    // what is to be pushed: nothing if it is superseded
	noted    time.Time  // when the push cannot arrive late any more
}

func (r *redelivery) push(ctx context.Context) (d delivery) {
	if len(r.entries) == 0 {
		return d
	}
	ctx, stop := r.store.keepLease(ctx, r.hold.token, []advance{{peerLane: r.at, Cursor: r.hold.cursor}})
	defer stop()
	ctx, traced := r.trace(ctx)
	defer func() { endDelivery(traced, d) }()
	pushes := r.cfg.bounded()
	shipment := pack([]batch{{Lane: r.at.Lane, Entries: r.entries}}, nil, r.cfg.SenderID, r.cfg.limits)
	how := isolation{parts: pushes, until: time.Now().Add(r.cfg.PushTimeout), repeats: pushRepeats, suspicions: suspicionsAfter(r.class, certainAfter)}
	return shipment.send(ctx, pushes, r.args.Peer, how)
}

// claim leases the lane. ok is false if there is nothing to do now.
func (r *redelivery) claim(ctx context.Context) (ok bool, err error) {
	err = pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
		r.at.Peer = r.args.Peer
		err := tx.QueryRow(ctx, `select lane, attempts, class from refusals where peer = $1 and entry = $2 and next_at <= clock_timestamp() for update`, r.args.Peer, r.args.Entry).
			Scan(&r.at.Lane, &r.attempts, &r.class)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // delivered, dropped or postponed meanwhile
		}
		if err != nil {
			return err
		}
		if r.hold, ok, err = r.store.takeLane(ctx, tx, r.at); err != nil {
			return err
		}
		if !ok {
			return r.postpone(ctx, tx, r.cfg.Redeliver.Initial)
		}
		if r.entries, err = remaining(ctx, tx, r.args.Entry); err != nil {
			return err
		}
		if len(r.entries) == 0 {
			return r.keepArchived(ctx, tx)
		}
		fault.Hit(fault.RedeliverClaiming)
		return r.note(ctx, tx)
	})
	if err != nil {
		return false, fmt.Errorf("redeliver %s: %w", r.args, err)
	}
	return ok, nil
}

// keepArchived asks for a repair of a memory whose refused archive is superseded: what came later does not say what it was when it was archived.
func (r *redelivery) keepArchived(ctx context.Context, tx pgx.Tx) error {
	var archive bool
	if err := tx.QueryRow(ctx, `select exists (select from outbox where id = $1 and kind = 'archive')`, r.args.Entry).Scan(&archive); err != nil || !archive {
		return err
	}
	_, err := repairSubjects(ctx, tx, r.at.Peer, []int64{r.args.Entry}, allSubjects, nil)
	return err
}

// note writes down, before the first byte, that the push may arrive late: what it touches is repaired when it cannot any more, unless an answer comes.
func (r *redelivery) note(ctx context.Context, tx pgx.Tx) error {
	if err := tx.QueryRow(ctx, `select clock_timestamp() + $1::interval`, r.cfg.JobTimeout+r.cfg.Zombie).Scan(&r.noted); err != nil {
		return err
	}
	_, err := repairSubjects(ctx, tx, r.at.Peer, []int64{r.args.Entry}, allSubjects, &r.noted)
	return err
}

// forget takes the note back if the peer has answered everything.
func (r *redelivery) forget(ctx context.Context, tx pgx.Tx, d delivery) error {
	if d.inDoubt || len(r.entries) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `delete from repairs where peer = $1 and due_at = $2 and attempts = 0`, r.at.Peer, r.noted); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `update repairs set again_at = null where peer = $1 and again_at = $2`, r.at.Peer, r.noted)
	return err
}

// overtaken asks for a repair if what was pushed is superseded by now: the log may have brought that in another lane before, such as a source of a consolidate that has
// been stored again.
func (r *redelivery) overtaken(ctx context.Context, tx pgx.Tx) error {
	if len(r.entries) == 0 {
		return nil
	}
	now, err := remaining(ctx, tx, r.args.Entry)
	if err != nil {
		return err
	}
	if slices.EqualFunc(now, r.entries, func(a, b entry) bool { return a.ID == b.ID && a.Kind == b.Kind }) {
		return nil
	}
	_, err = repairSubjects(ctx, tx, r.at.Peer, []int64{r.args.Entry}, allSubjects, nil)
	return err
}

func (r *redelivery) postpone(ctx context.Context, tx pgx.Tx, delay time.Duration) error {
	_, err := tx.Exec(ctx, `update refusals set next_at = clock_timestamp() + $3::interval where peer = $1 and entry = $2`,
		r.args.Peer, r.args.Entry, delay)
	return err
}

// postponeAll leaves a peer alone that is away: one entry has asked for all of them.
func (r *redelivery) postponeAll(ctx context.Context, tx pgx.Tx, delay time.Duration) error {
	_, err := tx.Exec(ctx, `
		with due as (
			select peer, entry from refusals where peer = $1 and next_at < clock_timestamp() + $2::interval order by entry for update skip locked
		)
		update refusals r
		set next_at = clock_timestamp() + $2::interval
		from due
		where r.peer = due.peer and r.entry = due.entry`, r.args.Peer, delay)
	return err
}

// record writes down what came of it and gives the lane back.
func (r *redelivery) record(ctx context.Context, d delivery) error {
	err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
		if err := r.store.giveBack(ctx, tx, r.hold, 0); err != nil {
			return err
		}
		if err := r.forget(ctx, tx, d); err != nil {
			return err
		}
		if err := r.overtaken(ctx, tx); err != nil {
			return err
		}
		fault.Hit(fault.RedeliverRecording)
		switch {
		case d.err != nil && ofPeer(peer.ClassOf(d.err)):
			if err := setBack(ctx, tx, r.at.Peer, setback{peer.ClassOf(d.err), r.cfg.Retry.retryDelay(1, d.err), 1}); err != nil {
				return err
			}
			return r.postponeAll(ctx, tx, max(r.cfg.Redeliver.Initial, r.cfg.Retry.retryDelay(1, d.err)))
		case d.err != nil:
			return r.postpone(ctx, tx, max(r.cfg.Redeliver.Initial, r.cfg.Retry.retryDelay(1, d.err)))
		case len(d.refused) > 0:
			_, err := tx.Exec(ctx, `
				update refusals
				set class = $3, attempts = attempts + 1, last_at = now(), next_at = clock_timestamp() + $4::interval
				where peer = $1 and entry = $2`,
				r.args.Peer, r.args.Entry, string(d.refused[0].Class), r.cfg.Redeliver.Delay(r.attempts+1, 0))
			return err
		}
		_, err := tx.Exec(ctx, `delete from refusals where peer = $1 and entry = $2`, r.args.Peer, r.args.Entry)
		return err
	})
	if errors.Is(err, errLeaseLost) {
		return nil // whoever has the lane brings it up to date, and the refusal is still due
	}
	if err != nil {
		return fmt.Errorf("redeliver %s: %w", r.args, err)
	}
	fault.Hit(fault.RedeliverRecorded)
	r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "refused entry was tried again", slog.String("peer", r.args.Peer), slog.Int64("entry", r.args.Entry),
		slog.Bool("superseded", len(r.entries) == 0), slog.Bool("delivered", d.err == nil && len(d.refused) == 0 && len(r.entries) > 0))
	return nil
}

// remaining is what is left to push of a refused entry: nothing if later entries have superseded it, or if it was pruned; with a pending action its
// decisions, without which it would stay pending; of a consolidate the new memory alone once a source has a later life.
func remaining(ctx context.Context, tx pgx.Tx, id int64) ([]entry, error) {
	entries := map[int64]entry{}
	if err := queryEntries(ctx, tx, entries, `o.id = $1`, id); err != nil || len(entries) == 0 {
		return nil, err
	}
	e := entries[id]
	delete(entries, id)
	switch e.Kind {
	case outbox.KindLink:
		var p struct {
			Source string `json:"source_id"`
			Target string `json:"target_id"`
		}
		_ = json.Unmarshal(e.Payload, &p)
		return unless(ctx, tx, e, endedLater, p.Source, p.Target)
	case outbox.KindNamespaceSet:
		var p struct {
			Standard string `json:"standard_id"`
		}
		_ = json.Unmarshal(e.Payload, &p)
		if list, err := unless(ctx, tx, e, standardLater, e.Key); err != nil || list == nil {
			return nil, err
		}
		return unless(ctx, tx, e, endedLater, p.Standard)
	case outbox.KindNamespaceClear:
		return unless(ctx, tx, e, standardLater, e.Key)
	case outbox.KindPending:
		list, err := unless(ctx, tx, e, pendingLater, e.Key)
		if err != nil || list == nil {
			return nil, err
		}
		if err := queryEntries(ctx, tx, entries, `o.id > $1 and o.kind = 'decision' and o.key = $2`, id, e.Key); err != nil {
			return nil, err
		}
		for _, id := range slices.Sorted(maps.Keys(entries)) {
			list = append(list, entries[id])
		}
		return list, nil
	case outbox.KindDecision:
		return []entry{e}, nil
	case outbox.KindConsolidate:
		return remainingConsolidate(ctx, tx, e)
	case outbox.KindStore, outbox.KindDelete, outbox.KindArchive, outbox.KindRestore:
	}
	return unless(ctx, tx, e, livedLater, e.Key)
}

func remainingConsolidate(ctx context.Context, tx pgx.Tx, e entry) ([]entry, error) {
	var p struct {
		Memory  json.RawMessage
		Sources []struct{ ID string }
	}
	_ = json.Unmarshal(e.Payload, &p)
	list, err := unless(ctx, tx, e, livedLater, e.Key)
	if err != nil || list == nil {
		return nil, err
	}
	var sources []string
	for _, s := range p.Sources {
		sources = append(sources, s.ID)
	}
	if list, err = unless(ctx, tx, e, livedLater, sources...); err != nil || list != nil {
		return list, err
	}
	e.Kind, e.Payload = outbox.KindStore, p.Memory
	return []entry{e}, nil
}

// What supersedes an entry, as conditions on a later one (o) that concerns one of the ids $2.
const (
	livedLater    = `(o.kind in ('store', 'delete', 'archive', 'restore', 'consolidate') and o.key = any ($2) or ` + consolidated + `)`
	endedLater    = `(o.kind in ('delete', 'archive') and o.key = any ($2) or ` + consolidated + `)`
	pendingLater  = `(o.kind = 'pending' and o.key = any ($2))`
	standardLater = `(o.kind in ('namespace_set', 'namespace_clear') and o.key = any ($2))`

	consolidated = `o.kind = 'consolidate' and exists (select from json_array_elements(o.payload -> 'sources') s where s ->> 'id' = any ($2))`
)

// unless returns e, or nil if a later entry meets the condition.
func unless(ctx context.Context, tx pgx.Tx, e entry, later string, ids ...string) ([]entry, error) {
	var superseded bool
	if err := tx.QueryRow(ctx, `select exists (select from outbox o where o.id > $1 and `+later+`)`, e.ID, ids).Scan(&superseded); err != nil {
		return nil, fmt.Errorf("look for later entries: %w", err)
	}
	if superseded {
		return nil, nil
	}
	return []entry{e}, nil
}
