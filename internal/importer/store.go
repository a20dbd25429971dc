package importer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/outbox"
)

// Pauses between two attempts of a chunk.
const (
	retryInitial = 100 * time.Millisecond
	retryMax     = 2 * time.Second
)

// errRowChanged says that a row was refused that had been taken a moment before: another writer is at the same memories.
var errRowChanged = errors.New("another writer changes the same memories: import again when it is done")

// storeLines stores the lines without an error in one transaction and returns the results by index of line. A line that the database refuses
// gets its error. The transaction is repeated for up to retryFor while that may help; repeating is safe whatever became of the commit,
// because a store of the same memory changes nothing.
func storeLines(ctx context.Context, pool *pgxpool.Pool, lines []line, retryFor time.Duration) ([]outbox.Stored, error) {
	good := make([]int, 0, len(lines)) // indexes of lines
	for i, l := range lines {
		if l.err == nil {
			good = append(good, i)
		}
	}
	results := make([]outbox.Stored, len(lines))
	if len(good) == 0 {
		return results, nil
	}

	var refused map[int]error
	attempt := func() error {
		refused = map[int]error{}
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			return storeParts(ctx, tx, lines, good, results, refused)
		})
		if err != nil && (ctx.Err() != nil || !transient(err)) {
			return backoff.Permanent(err)
		}
		return err
	}
	schedule := backoff.NewExponentialBackOff(backoff.WithInitialInterval(retryInitial), backoff.WithMaxInterval(retryMax),
		backoff.WithMaxElapsedTime(retryFor))
	if err := backoff.Retry(attempt, backoff.WithContext(schedule, ctx)); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	for i, err := range refused {
		lines[i].err = err
	}
	return results, nil
}

// storeParts stores the good lines in parts, each in a savepoint. A part with a row that the database refuses is rolled back; the
// rows before that one are stored again without it, and the next part is half as large. A part that goes well doubles the next. So the
// work is a small multiple of the number of lines even if all of them are refused, and one statement run if none is.
func storeParts(ctx context.Context, tx pgx.Tx, lines []line, good []int, results []outbox.Stored, refused map[int]error) error {
	store := func(part []int) error {
		memories := make([]outbox.Memory, len(part))
		for i, at := range part {
			memories[i] = lines[at].memory
		}
		return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			stored, err := outbox.StoreMany(ctx, tx, memories)
			for i, s := range stored {
				results[part[i]] = s
			}
			return err
		})
	}
	for size := len(good); len(good) > 0; {
		part := good[:min(size, len(good))]
		err := store(part)
		if err == nil {
			good = good[len(part):]
			size *= 2
			continue
		}
		row, ok := errors.AsType[*outbox.RowError](err)
		if !ok || !refusal(row.Err) {
			return err
		}
		if row.Row > 0 {
			err := store(part[:row.Row])
			if again, ok := errors.AsType[*outbox.RowError](err); ok && refusal(again.Err) {
				return fmt.Errorf("%w: %w", errRowChanged, err)
			}
			if err != nil {
				return err
			}
		}
		refused[part[row.Row]] = row.Err
		good = good[row.Row+1:]
		size = max(1, size/2)
	}
	return nil
}

// refusal reports whether the database says no to the row as such.
func refusal(err error) bool {
	if _, ok := errors.AsType[*outbox.InvalidError](err); ok || errors.Is(err, outbox.ErrTitleTaken) {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.ContainsFunc([]string{
		"22", // data exception
		"23", // integrity constraint violation
		"54", // program limit exceeded
	}, func(class string) bool { return strings.HasPrefix(pgErr.Code, class) })
}

// transient reports whether the same transaction may succeed a little later. An error that is not the server's is one of the connection.
func transient(err error) bool {
	if errors.Is(err, errRowChanged) {
		return true
	}
	if refusal(err) {
		return false
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return !ok || slices.ContainsFunc([]string{
		"08",    // connection exception
		"25P03", // idle in transaction timeout: this process was stopped for a while
		"40",    // transaction rollback: serialization failure, deadlock
		"53",    // insufficient resources
		"55P03", // lock not available
		"57P",   // operator intervention: shutdown, recovery
	}, func(prefix string) bool { return strings.HasPrefix(pgErr.Code, prefix) })
}
