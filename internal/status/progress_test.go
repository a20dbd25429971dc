package status_test

import (
	"errors"
	"testing"
	"time"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/jobs"
)

func TestReadProgress(t *testing.T) {
	t.Parallel()
	// wait puts an entry of lane 5 into the queue, written as long ago as $1 says.
	const wait = `
		with written as (
			insert into outbox (lane, namespace, kind, key, created_at) values (5, 'n', 'delete', 'k', now() - $1::interval) returning id
		)
		insert into undispatched (lane, entry, bytes) select 5, id, 1 from written`
	type step struct {
		sql  string
		args []any
	}
	pause := step{`insert into river_queue (name, created_at, updated_at, paused_at) values ($1, now(), now(), now())`, []any{jobs.FanOutQueue}}
	for _, tt := range []struct {
		name  string
		steps []step
		want  status.Progress
	}{
		{"idle", nil, status.Progress{}},
		{"all decided long ago", []step{{log, []any{5, 3, "1 hour", "met", ""}}}, status.Progress{}},
		{"a young entry", []step{{wait, []any{"20 seconds"}}}, status.Progress{}},
		{"an old entry in a lane without batches", []step{{wait, []any{"40 seconds"}}}, status.Progress{Undispatched: true}},
		{"an old entry after an old batch", []step{{log, []any{5, 1, "1 hour", "not_met", "timeout"}}, {wait, []any{"40 seconds"}}}, status.Progress{Undispatched: true}},
		{"a long queue that moves", []step{{log, []any{5, 1, "1 second", "met", ""}}, {wait, []any{"1 hour"}}}, status.Progress{}},
		{"another lane moves", []step{{log, []any{6, 1, "1 second", "met", ""}}, {wait, []any{"1 hour"}}}, status.Progress{Undispatched: true}},
		{"a young batch", []step{{log, []any{5, 1, "50 seconds", "pending", ""}}}, status.Progress{}},
		{"an old batch, and what waits for it", []step{{log, []any{5, 1, "70 seconds", "pending", ""}}, {wait, []any{"65 seconds"}}}, status.Progress{Undecided: true}},
		{"paused", []step{{log, []any{5, 1, "70 seconds", "pending", ""}}, pause}, status.Progress{Undecided: true, FanOutPaused: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			for _, s := range tt.steps {
				exec(t, pool, s.sql, s.args...)
			}
			got, err := status.ReadProgress(t.Context(), pool, status.Limits{Dispatch: 30 * time.Second, Decision: time.Minute})
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestReadProgressWithoutTables(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, `drop table undispatched`)
	if _, err := status.ReadProgress(t.Context(), pool, status.Limits{}); !errors.Is(err, status.ErrNoSchema) {
		t.Errorf("got %v, want ErrNoSchema", err)
	}
}
