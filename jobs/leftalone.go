package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/locks"
	"quorumbox/internal/peer"
)

// A peer is left alone while an operator has paused it, and after it failed as a whole. Then no lane in step is pushed to it, and all that it misses waits as
// rows of lagging. One retry of the fleet at a time probes a failed peer, with its own lane; the first that is answered lets the others go on at once.

// pausedPeer is a condition on a row l that names a peer: an operator has paused it. River's table is where that is written down, whoever does it.
const pausedPeer = `exists (select from river_queue q where q.name = 'peer_' || l.peer and q.paused_at is not null)`

// ofPeer reports whether a failure concerns the peer and not what was pushed: other lanes would fail alike.
func ofPeer(class peer.Class) bool {
	switch class {
	case peer.ClassRefusedConnection, peer.ClassUnreachable, peer.ClassConnectTimeout, peer.ClassTimeout, peer.ClassConnectionLost,
		peer.ClassServerTimeout, peer.ClassServerError, peer.ClassUnavailable, peer.ClassRateLimited, peer.ClassHTTPOther, peer.ClassMalformedAnswer:
		return true
	default:
		return class.Configuration()
	}
}

// peerClasses are the classes of failures that concern the peer.
func peerClasses() []string {
	var list []string
	for _, c := range peer.Classes() {
		if ofPeer(c) {
			list = append(list, string(c))
		}
	}
	return list
}

// away reports whether a single failure is enough to take a peer for failed as a whole. A timeout or a 503 may be of one push.
func away(class peer.Class) bool {
	return ofPeer(class) && class != peer.ClassTimeout && class != peer.ClassUnavailable
}

func awayClasses() []string {
	return slices.DeleteFunc(peerClasses(), func(c string) bool { return !away(peer.Class(c)) })
}

// queueLeftAlone reads which peers are left alone. A single timeout or 503 is no reason: the peer may be slow for once, and all lanes would miss its vote. The
// retry that comes next finds out.
func queueLeftAlone(b *pgx.Batch, into map[string]bool) {
	b.Queue(`
		select substr(name, length($1) + 1) from river_queue where paused_at is not null and starts_with(name, $1)
		union
		select peer from lagging where last_class = any ($2) and (failures > 1 or last_class = any ($3))`,
		PeerQueue(""), peerClasses(), awayClasses()).Query(func(rows pgx.Rows) error {
		var p string
		_, err := pgx.ForEachRow(rows, []any{&p}, func() error {
			into[p] = true
			return nil
		})
		return err
	})
}

// lockProbes lets one retry of a peer choose its lanes at a time, until the end of tx.
func lockProbes(ctx context.Context, tx pgx.Tx, p string) error {
	_, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1, hashtext($2))`, locks.Probe, p)
	return err
}

// setback is how long a peer is left alone.
type setback struct {
	class    peer.Class // why; "": as before
	delay    time.Duration
	failures int // in a row, at least
}

// setBack leaves all lagging lanes of a peer alone that nobody holds and a retry looks after, up to the same instant. It waits for no lock: a row that somebody is working on is
// left out.
func setBack(ctx context.Context, tx pgx.Tx, p string, by setback) error {
	_, err := tx.Exec(ctx, `
		with unheld as (
			select peer, lane
			from lagging
			where peer = $1 and leased_until is null and retry is not null
			for update skip locked
		), until as materialized (
			select clock_timestamp() + $2::interval as at
		)
		update lagging l
		set not_before = greatest(l.not_before, until.at), failures = greatest(l.failures, $3), last_class = coalesce(nullif($4, ''), l.last_class)
		from unheld u
		cross join until
		where l.peer = u.peer and l.lane = u.lane`, p, by.delay, by.failures, string(by.class))
	if err != nil {
		return fmt.Errorf("leave %s alone: %w", p, err)
	}
	return nil
}

// recordSetbacks leaves the peers alone that failed as a whole.
func recordSetbacks(ctx context.Context, tx pgx.Tx, list map[string]setback) error {
	for _, p := range slices.Sorted(maps.Keys(list)) {
		if err := setBack(ctx, tx, p, list[p]); err != nil {
			return err
		}
	}
	return nil
}

// answered ends what was noted of a peer's failures: it answers again.
func (s *store) answered(ctx context.Context, p string) error {
	_, err := s.pool.Exec(ctx, `
		with failed as (
			select peer, lane from lagging where peer = $1 and last_class = any ($2) and retry is not null for update skip locked
		)
		update lagging l
		set failures = 0, last_class = '', not_before = least(l.not_before, clock_timestamp())
		from failed f
		where l.peer = f.peer and l.lane = f.lane`, p, peerClasses())
	if err != nil {
		return fmt.Errorf("note that %s answers: %w", p, err)
	}
	return nil
}
