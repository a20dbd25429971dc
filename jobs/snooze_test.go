package jobs

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
)

// However often a peer fails, its job keeps its attempts and holds no list of errors: it would grow without end.
func TestFailuresOfAPeerDoNotWearItsJob(t *testing.T) {
	t.Parallel()
	const (
		peers    = 50
		failures = 1000 // of all of them
	)
	pool := pgtest.New(t)
	_, err := pool.Exec(t.Context(), `
		with o as (
			insert into outbox (lane, namespace, kind, key) values (3, 'n', 'delete', 'k') returning id
		)
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed)
		select 3, 1, array[id], id, id, 0, 1, 1, now(), 'met', 1 from o`)
	if err != nil {
		t.Fatal(err)
	}
	classes := []peer.Class{peer.ClassRefusedConnection, peer.ClassUnavailable, peer.ClassRateLimited, peer.ClassTimeout, peer.ClassUnauthorized}
	var requests atomic.Int64
	cfg := Config{
		Retry: Schedule{Initial: time.Millisecond, Max: time.Millisecond, Hold: time.Millisecond},
		RetryPush: PushFunc(func(context.Context, string, peer.Request) (peer.Report, error) {
			return peer.Report{Attempts: 1}, &peer.Error{Class: classes[requests.Add(1)%int64(len(classes))]}
		}),
	}.withDefaults()
	workers := river.NewWorkers()
	river.AddWorker(workers, &peerRetryWorker{cfg: cfg, store: &store{pool: pool, lease: cfg.Lease, zombie: cfg.Zombie}})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 10}},
		FetchCooldown: time.Millisecond, FetchPollInterval: 10 * time.Millisecond, Workers: workers, Logger: cfg.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range peers {
		args := PeerRetryArgs{Peer: fmt.Sprintf("p%d", i), Lane: 3, Retry: int64(i + 1)}
		if _, err := pool.Exec(t.Context(), `insert into peers (id) values ($1)`, args.Peer); err != nil {
			t.Fatal(err)
		}
		_, err := pool.Exec(t.Context(), `insert into lagging (peer, lane, cursor, pushed_to, retry) values ($1, $2, 0, 0, $3)`, args.Peer, args.Lane, args.Retry)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Insert(t.Context(), args, &river.InsertOpts{Queue: river.QueueDefault, MaxAttempts: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for requests.Load() < failures {
		select {
		case <-deadline.C:
			t.Fatalf("got %d requests, want %d", requests.Load(), failures)
		case <-tick.C:
		}
	}
	if err := client.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	var worn, recorded int64
	err = pool.QueryRow(t.Context(), `
		select (select count(*) from river_job
		        where attempt > 0 or max_attempts > 1 or cardinality(errors) > 0 or state not in ('available', 'scheduled') or octet_length(metadata::text) > 200),
		       (select sum(failures) from lagging)`).Scan(&worn, &recorded)
	if err != nil {
		t.Fatal(err)
	}
	if worn != 0 || recorded != requests.Load() {
		t.Errorf("got %d worn jobs and %d failures written down after %d, want no attempt and no error in a job, and all failures in our table",
			worn, recorded, requests.Load())
	}
}
