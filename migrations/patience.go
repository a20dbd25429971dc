package migrations

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs of a migration that stood in somebody's way, and was rolled back.
const (
	lockNotAvailable = "55P03" // the lock timeout
	deadlockDetected = "40P01"
)

// patiently does something again while it fails because of others' locks.
func (o Options) patiently(ctx context.Context, do func() error) error {
	patience := o.Patience
	if patience <= 0 {
		patience = DefaultPatience
	}
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstPause), backoff.WithMaxInterval(longestPause), backoff.WithMaxElapsedTime(patience))
	tell := o.Waiting
	if tell == nil {
		tell = func(error, time.Duration) {}
	}
	err := backoff.RetryNotify(func() error {
		err := do()
		if err != nil && !inTheWay(err) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(pauses, ctx), tell)
	if inTheWay(err) {
		return fmt.Errorf("%w: a transaction has held what a migration needs for %s: "+
			"end it (select pid, state, xact_start, query from pg_stat_activity order by xact_start) and migrate again", err, patience)
	}
	return err
}

func inTheWay(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == lockNotAvailable || e.Code == deadlockDetected)
}
