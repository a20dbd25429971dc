package jobs

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// A worker that starts while others work survives a deadlock of their locks and its own.
func TestRegisterPeersSurvivesADeadlock(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	registered := make(chan error, 1)
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// The other session looks for deadlocks first, and so is the one that is ended.
		if _, err := tx.Exec(ctx, `set local deadlock_timeout = '1h'`); err != nil {
			return err
		}
		if err := outbox.LockLanes(ctx, tx, []int16{5}); err != nil {
			return err
		}
		go func() { registered <- RegisterPeers(ctx, pool, []string{"a"}) }()
		for waits := false; !waits; {
			if err := pool.QueryRow(ctx, `select exists (
				select from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())
			)`).Scan(&waits); err != nil {
				return err
			}
		}
		return outbox.LockLanes(ctx, tx, []int16{0})
	})
	if err != nil {
		t.Fatalf("the others' transaction: %v", err)
	}
	if err := <-registered; err != nil {
		t.Errorf("got %v, want the peers registered", err)
	}
	var known int
	if err := pool.QueryRow(ctx, `select count(*) from peers where id = 'a'`).Scan(&known); err != nil || known != 1 {
		t.Errorf("got %d peers, error %v, want 1", known, err)
	}
}
