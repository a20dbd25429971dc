package jobs

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
)

// A peer is in step only when the lane's newest batch is decided: until then its fan-out must find the row, or it would send the batch again. The relay is kept
// out of a lane only where the peer has its newest batch.
func TestRecordAdvances(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cursor  int64
		verdict string // of batch 2, the newest
		holder  int64
		want    []position
		locks   int
		err     error
	}{
		"has the newest, decided":   {2, "met", 7, nil, 1, nil},
		"has the newest, undecided": {2, "pending", 7, []position{{peerLane{"a", 3}, false}}, 1, nil},
		"misses the newest":         {1, "met", 7, []position{{peerLane{"a", 3}, true}}, 0, nil},
		"held by somebody else":     {2, "met", 8, nil, 1, errLeaseLost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			_, err := pool.Exec(t.Context(), `
				with p as (
					insert into peers (id) values ('a')
				), b as (
					insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed)
					values (3, 1, '{1}', 1, 1, 0, 1, 1, now(), 'met', 1), (3, 2, '{2}', 2, 2, 0, 2, 2, now(), $1, 1)
				)
				insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until) values ('a', 3, 0, 2, $2, now() + interval '1 hour')`,
				c.verdict, c.holder)
			if err != nil {
				t.Fatal(err)
			}
			var still []position
			locks := 0
			err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
				still, err = recordAdvances(t.Context(), tx, 7, []advance{{peerLane{"a", 3}, c.cursor}})
				return errors.Join(err, tx.QueryRow(t.Context(), `
					select count(*) from pg_locks where locktype = 'advisory' and objid = 3 and pid = pg_backend_pid()`).Scan(&locks))
			})
			if !errors.Is(err, c.err) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.want, still, cmp.AllowUnexported(position{}, peerLane{})); diff != "" {
				t.Errorf("rows that stay (-want +got):\n%s", diff)
			}
			if locks != c.locks {
				t.Errorf("got %d lanes locked, want %d", locks, c.locks)
			}
			rows := 0
			if err := pool.QueryRow(t.Context(), `select count(*) from lagging`).Scan(&rows); err != nil {
				t.Fatal(err)
			}
			if gone := rows == 0; gone != (c.want == nil && c.err == nil) {
				t.Errorf("row gone: %t", gone)
			}
		})
	}
}
