package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// doubt says that pushes of a lane's batches after From, up to and with To, may still arrive at a peer although nobody waits for their answer any more:
// after a timeout, a lost connection, or the death of the worker that sent them. Such a push is a zombie for [Config.Zombie]; what it does then is put right
// by a [RepairArgs] job.
type doubt struct {
	peerLane
	From int64
	To   int64
}

// doubtBuckets is into how many parts a zombie's life is divided: doubts of one part share a row, so that there are at most so many, and one, for each
// lane of a peer however many pushes fail.
const doubtBuckets = 16

// doubtUntil is when doubts that arise now end, by the database's clock, rounded up to a bucket: $n is the zombie's life, an interval.
func doubtUntil(n int) string {
	return fmt.Sprintf(`to_timestamp(ceil(extract(epoch from clock_timestamp() + $%[1]d::interval) * %[2]d / extract(epoch from $%[1]d::interval))
		* extract(epoch from $%[1]d::interval) / %[2]d)`, n, doubtBuckets)
}

// mergeDoubts ends an insert into doubts.
const mergeDoubts = `
	on conflict (peer, lane, until) do update
	set from_number = least(doubts.from_number, excluded.from_number), to_number = greatest(doubts.to_number, excluded.to_number)`

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// recordDoubts writes doubts down. It must be committed before anything else is pushed to those lanes: the zombie is only dangerous to what comes after it.
func (s *store) recordDoubts(ctx context.Context, db execer, list []doubt) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b doubt) int { return a.compare(b.peerLane) }) // one order of locks for all
	n := len(list)
	peers, lanes, from, to := make([]string, n), make([]int16, n), make([]int64, n), make([]int64, n)
	for i, d := range list {
		peers[i], lanes[i], from[i], to[i] = d.Peer, d.Lane, d.From, d.To
	}
	_, err := db.Exec(ctx, `
		insert into doubts (peer, lane, from_number, to_number, until)
		select w.peer, w.lane, min(w.from_number), max(w.to_number), `+doubtUntil(5)+`
		from unnest($1::text[], $2::smallint[], $3::bigint[], $4::bigint[]) w (peer, lane, from_number, to_number)
		group by w.peer, w.lane
		order by w.peer, w.lane`+mergeDoubts, peers, lanes, from, to, s.zombie)
	if err != nil {
		return fmt.Errorf("record pushes in doubt: %w", err)
	}
	return nil
}

// doubtHeld records that what token may have pushed beyond the cursors of the lanes it holds is in doubt.
func (s *store) doubtHeld(ctx context.Context, db execer, token int64) error {
	_, err := db.Exec(ctx, `
		insert into doubts (peer, lane, from_number, to_number, until)
		select l.peer, l.lane, l.cursor, l.pushed_to, `+doubtUntil(2)+`
		from lagging l
		where l.holder = $1 and l.pushed_to > l.cursor
		order by l.peer, l.lane`+mergeDoubts, token, s.zombie)
	if err != nil {
		return fmt.Errorf("record pushes in doubt: %w", err)
	}
	return nil
}

// doubtFanOut records that what a fan-out may have pushed of its undecided batches is in doubt at all peers.
func (s *store) doubtFanOut(ctx context.Context, fanOut int64, peers []string) error {
	_, err := s.pool.Exec(ctx, `
		insert into doubts (peer, lane, from_number, to_number, until)
		select p.peer, b.lane, b.number - 1, b.number, `+doubtUntil(3)+`
		from batches b
		cross join unnest($2::text[]) p (peer)
		where b.fan_out = $1 and b.verdict = 'pending'
		order by p.peer, b.lane`+mergeDoubts, fanOut, peers, s.zombie)
	if err != nil {
		return fmt.Errorf("record pushes in doubt: %w", err)
	}
	return nil
}

// expire ends the leases of lagging lanes that ran out: their holder was killed, or is so slow that it may not record any more, and what it pushed is in doubt.
// Nobody takes such a lane over in another way. The lanes are returned.
func (s *store) expire(ctx context.Context, tx pgx.Tx, peers []string) ([]peerLane, error) {
	rows, err := tx.Query(ctx, `
		with gone as materialized (
			select peer, lane
			from lagging
			where peer = any ($1) and leased_until < clock_timestamp()
			order by peer, lane
			for update skip locked
		), freed as (
			update lagging l
			set holder = null, leased_until = null
			from gone g
			where l.peer = g.peer and l.lane = g.lane
			returning l.peer, l.lane, l.cursor, l.pushed_to
		), doubted as (
			insert into doubts (peer, lane, from_number, to_number, until)
			select f.peer, f.lane, f.cursor, f.pushed_to, `+doubtUntil(2)+`
			from freed f
			where f.pushed_to > f.cursor
			order by f.peer, f.lane`+mergeDoubts+`
		)
		select peer, lane from freed`, peers, s.zombie)
	if err != nil {
		return nil, fmt.Errorf("end expired leases: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[peerLane])
	if err != nil {
		return nil, fmt.Errorf("end expired leases: %w", err)
	}
	return list, nil
}

// begun says whether a fan-out may have pushed something before it is taken over.
type begun bool

const (
	notBegun  begun = false // it waited too long in its queue
	maybeSent begun = true
)

// reclaim moves a fan-out's undecided batches to a new token with a fresh lease and returns the token, 0 if nothing is left to do.
// Whoever holds the old token (an earlier attempt of the job that was given up for dead) records nothing any more; what it may have pushed to the
// peers is in doubt.
func (s *store) reclaim(ctx context.Context, tx pgx.Tx, fanOut int64, sent begun, peers []string) (int64, error) {
	rows, err := tx.Query(ctx, `
		with token as materialized (
			select nextval('tokens') as id
		)
		update batches
		set fan_out = (select id from token), leased_until = clock_timestamp() + $2::interval
		where fan_out = $1 and verdict = 'pending'
		returning fan_out, lane, number`, fanOut, s.lease)
	if err != nil {
		return 0, fmt.Errorf("reclaim fan-out %d: %w", fanOut, err)
	}
	var (
		token  int64
		ref    batchRef
		doubts []doubt
	)
	_, err = pgx.ForEachRow(rows, []any{&token, &ref.Lane, &ref.Number}, func() error {
		for _, p := range peers {
			doubts = append(doubts, doubt{peerLane{p, ref.Lane}, ref.Number - 1, ref.Number})
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reclaim fan-out %d: %w", fanOut, err)
	}
	if sent == notBegun {
		return token, nil
	}
	return token, s.recordDoubts(ctx, tx, doubts)
}

// reclaimNow is reclaim in a transaction of its own.
func (s *store) reclaimNow(ctx context.Context, fanOut int64, sent begun, peers []string) (token int64, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		token, err = s.reclaim(ctx, tx, fanOut, sent, peers)
		return err
	})
	return token, err
}

// dropDoubts forgets the doubts that are over and of which the peer still misses everything: it is pushed those batches after them. A lane that somebody
// holds is left alone, because that push may have begun before.
func dropDoubts(ctx context.Context, tx pgx.Tx, peers []string) error {
	_, err := tx.Exec(ctx, `
		delete from doubts d
		using lagging l
		where d.peer = any ($1) and d.until < clock_timestamp()
		  and l.peer = d.peer and l.lane = d.lane and l.cursor <= d.from_number and l.holder is null`, peers)
	if err != nil {
		return fmt.Errorf("drop doubts: %w", err)
	}
	return nil
}

// resolveLimit bounds how many entries one sweep turns into repairs; the next goes on.
const resolveLimit = 20_000

// resolveDoubts turns the doubts of a peer that are over into repairs of what their entries touch, as far as later entries touch it, too: otherwise the zombie
// did nothing but what was done anyway. It returns how many repairs that makes.
func resolveDoubts(ctx context.Context, tx pgx.Tx, p string) (int64, error) {
	rows, err := tx.Query(ctx, `
		select b.lane, b.number, b.entries, d.until
		from doubts d
		join batches b on b.lane = d.lane and b.number > d.from_number and b.number <= d.to_number
		where d.peer = $1 and d.until < clock_timestamp()
		  and not exists (select from lagging l where l.peer = d.peer and l.lane = d.lane and l.cursor < d.to_number)
		order by d.until, b.lane, b.number
		limit $2`, p, resolveLimit)
	if err != nil {
		return 0, fmt.Errorf("resolve doubts of %s: %w", p, err)
	}
	type bucket struct {
		lane  int16
		until time.Time
	}
	var (
		ref     batchRef
		ids     []int64
		until   time.Time
		entries []int64
		full    bool
		reached = map[bucket]int64{}
	)
	_, err = pgx.ForEachRow(rows, []any{&ref.Lane, &ref.Number, &ids, &until}, func() error {
		if full = full || len(entries) >= resolveLimit; full {
			return nil
		}
		entries = append(entries, ids...)
		reached[bucket{ref.Lane, until}] = ref.Number
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("resolve doubts of %s: %w", p, err)
	}
	for b, number := range reached {
		_, err := tx.Exec(ctx, `
			with rest as (
				update doubts set from_number = $4 where peer = $1 and lane = $2 and until = $3 and to_number > $4 returning 1
			)
			delete from doubts where peer = $1 and lane = $2 and until = $3 and to_number <= $4`,
			p, b.lane, b.until, number)
		if err != nil {
			return 0, fmt.Errorf("resolve doubts of %s: %w", p, err)
		}
	}
	if len(entries) == 0 {
		return 0, nil
	}
	return repairSubjects(ctx, tx, p, entries, supersededOnly, nil)
}
