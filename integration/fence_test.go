package integration

import (
	"slices"
	"syscall"
	"testing"

	"quorumbox/internal/fault"
)

// A worker is stopped in the middle of its pushes for longer than its lease lasts, and goes on after another one has taken over: it may not
// change what that one recorded.
func TestWorkerPausedBeyondItsLease(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	for _, p := range f.peers {
		p.setFaults(t, `{"mode":"slow","delay":"700ms"}`)
	}
	paused := f.worker(t, "")
	entries := f.store(t, memories("row", 10)...)
	until(t, "the pushes are under way", func() []string {
		c, err := f.peers[0].counters(t.Context())
		return append(problem(err), holds(c.Concurrent > 0, "they are not")...)
	})
	paused.signal(t, syscall.SIGSTOP)
	if f.count(t, `select count(*) from batches where verdict = 'pending'`) == 0 {
		t.Fatal("C10: the worker was stopped too late")
	}

	f.worker(t, "")
	wantMet(t, f.await(t, entries...), len(entries))
	const verdicts = `select b::text from batches b order by lane, number`
	before, err := f.strings(t.Context(), verdicts)
	if err != nil {
		t.Fatal(err)
	}
	paused.signal(t, syscall.SIGCONT)
	for _, p := range f.peers {
		p.setFaults(t, "")
	}
	paused.terminate(t) // it ends what it had begun before that
	after, err := f.strings(t.Context(), verdicts)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, after) {
		t.Errorf("batches changed after they were decided:\ngot\n%s\nwant\n%s", list(after), list(before))
	}
	f.converge(t, insertsOnly)
}

// Somebody deletes, cancels and discards River's jobs: the tables know what is left to do, and new jobs are made.
func TestJobsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, sql string }{
		{"deleted", `delete from river_job where state in ('available', 'pending', 'retryable', 'scheduled', 'running')`},
		{"cancelled", `update river_job set state = 'cancelled', finalized_at = now() where finalized_at is null`},
		{"discarded", `update river_job set state = 'discarded', finalized_at = now() where finalized_at is null`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, setup{})
			late := f.peers[2]
			late.kill(t)
			entries := f.store(t, memories("row", 15)...)
			w := f.worker(t, "")
			wantMet(t, f.await(t, entries...), len(entries))
			w.terminate(t)
			entries = f.store(t, memories("more", 15)...)
			f.workerKilledAt(t, string(fault.RelayDispatched))

			tag, err := f.pool.Exec(t.Context(), test.sql)
			if err != nil {
				t.Fatal(err)
			}
			if tag.RowsAffected() < 2 {
				t.Fatalf("C10: %d jobs were %s, want a fan-out and retries", tag.RowsAffected(), test.name)
			}
			late.start(t)
			f.worker(t, "")
			f.await(t, entries...)
			f.converge(t, insertsOnly)
		})
	}
}
