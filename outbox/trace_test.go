package outbox_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/span"
	"quorumbox/outbox"
)

const (
	traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	notSampled  = "00-11f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

// traced is a context that carries the span of a traceparent.
func traced(t *testing.T, traceparent string) context.Context {
	t.Helper()
	return trace.ContextWithRemoteSpanContext(t.Context(), span.Parse(traceparent))
}

// traceparents are those of all entries, in their order; "-" for none.
func traceparents(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select coalesce(traceparent, '-') from outbox order by id`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func tracedMemory(id string) outbox.Memory {
	return outbox.Memory{ID: id, Namespace: "ns", Title: id, Content: "content"}
}

// Whatever appends an entry gives it the trace of its context.
func TestEveryWriterFunctionTakesTheTrace(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := traced(t, traceparent)
	for name, write := range map[string]func(tx pgx.Tx) error{
		"store": func(tx pgx.Tx) error { _, err := outbox.Store(ctx, tx, tracedMemory("s")); return err },
		"store many": func(tx pgx.Tx) error {
			var many []outbox.Memory
			for _, id := range []string{"x", "y", "z"} {
				many = append(many, tracedMemory(id))
			}
			_, err := outbox.StoreMany(ctx, tx, many)
			return err
		},
		"the rest": func(tx pgx.Tx) error {
			for _, step := range []func() error{
				func() error {
					_, err := outbox.StoreMany(ctx, tx, []outbox.Memory{tracedMemory("a"), tracedMemory("b"), tracedMemory("c")})
					return err
				},
				func() error {
					_, err := outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: "a", TargetID: "b", Relation: "related_to"})
					return err
				},
				func() error {
					_, err := outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: "ns", StandardID: "a"})
					return err
				},
				func() error { _, err := outbox.NamespaceClear(ctx, tx, "ns", "other"); return err },
				func() error { _, err := outbox.Archive(ctx, tx, "c", "old"); return err },
				func() error { _, err := outbox.Restore(ctx, tx, "c"); return err },
				func() error { _, err := outbox.Consolidate(ctx, tx, tracedMemory("d"), []string{"b", "c"}); return err },
				func() error { _, err := outbox.Delete(ctx, tx, "a"); return err },
				func() error {
					_, err := outbox.Pending(ctx, tx, outbox.PendingAction{
						ID: "p", ActionType: "delete", Namespace: "ns", Payload: json.RawMessage(`{}`), RequestedBy: "ai:x", RequestedAt: time.Now(),
					})
					return err
				},
				func() error { _, err := outbox.Decide(ctx, tx, outbox.Decision{ID: "p", Decider: "ai:y"}); return err },
				func() error {
					_, err := outbox.Append(ctx, tx, outbox.Entry{Namespace: "ns", Kind: outbox.KindDelete, Key: "foreign"})
					return err
				},
			} {
				if err := step(); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		if err := pgx.BeginFunc(t.Context(), pool, write); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	list := traceparents(t, pool)
	if len(list) < 16 {
		t.Errorf("got %d entries, want those of every function", len(list))
	}
	for i, got := range list {
		if got != traceparent {
			t.Errorf("entry %d: got %q, want the writer's", i, got)
		}
	}
}

func TestTraceIsTheTransactions(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1 // the next transaction gets the same session
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, transaction := range [][]context.Context{
		{t.Context(), traced(t, traceparent), t.Context(), traced(t, notSampled)},
		{t.Context()},
	} {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			for i, ctx := range transaction {
				if _, err := outbox.Store(ctx, tx, tracedMemory(string(rune('a'+i)))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// A call without a span leaves the transaction's; a new transaction has none.
	if diff := cmp.Diff([]string{"-", traceparent, traceparent, notSampled, "-"}, traceparents(t, pool)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An error of the statement is the same with a span as without, and where the transaction can go on, it does.
func TestErrorsWithASpan(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := traced(t, traceparent)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := outbox.Delete(ctx, tx, "unknown"); !strings.Contains(err.Error(), outbox.ErrNotFound.Error()) {
			t.Errorf("got %v, want %v", err, outbox.ErrNotFound)
		}
		if _, err := outbox.Store(ctx, tx, tracedMemory("a")); err != nil {
			return err
		}
		other := tracedMemory("b")
		other.Title = "a"
		_, err := outbox.Store(ctx, tx, other)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), outbox.ErrTitleTaken.Error()) {
		t.Errorf("got %v, want %v", err, outbox.ErrTitleTaken)
	}
}

// A writer in any language sets it for its transaction. What is not valid is none, and never an error.
func TestTraceFromSQL(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for setting, want := range map[string]string{
		traceparent:                  traceparent,
		notSampled:                   notSampled,
		"":                           "-",
		"canary":                     "-",
		strings.ToUpper(traceparent): "-",
		traceparent + "0":            "-",
		traceparent + "\n":           "-",
		"01" + traceparent[2:]:       "-",
		"00-" + strings.Repeat("0", 32) + traceparent[35:]: "-",
		traceparent[:36] + strings.Repeat("0", 16) + "-01": "-",
		strings.Repeat("x", 10_000):                        "-",
	} {
		var got string
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `select set_config('quorumbox.traceparent', $1, true)`, setting); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), `
				with e as materialized (select outbox_append('ns', 'delete', 'm', null, null, null) as id)
				select id from e`).Scan(new(int64))
		})
		if err != nil {
			t.Errorf("%.60q: got %v, want the entry", setting, err)
			continue
		}
		if err := pool.QueryRow(t.Context(), `select coalesce(traceparent, '-') from outbox order by id desc limit 1`).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%.60q: got %q, want %q", setting, got, want)
		}
	}
	// Who names the column must have it right.
	_, err := pool.Exec(t.Context(), `insert into outbox (lane, namespace, kind, key, traceparent) values (0, 'ns', 'delete', 'm', 'canary')`)
	if err == nil || !strings.Contains(err.Error(), "entry_traceparent_w3c") {
		t.Errorf("got %v, want the rule of the column", err)
	}
}
