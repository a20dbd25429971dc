package integration

import (
	"strings"
	"testing"
)

// The checker finds what is wrong: it is shown a fleet that is in order, and the same with one thing falsified.
func TestChecker(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	w := f.worker(t, "")
	list := memories("row", 5)
	f.await(t, f.store(t, list...)...)
	f.converge(t, insertsOnly)
	f.peers[2].setFaults(t, `{"status":503}`)
	f.await(t, f.store(t, memories("late", 3)...)...)
	f.retriesMatch(t)
	w.terminate(t)
	f.peers[2].setFaults(t, "")

	differences := func() []string { return f.differences(t.Context(), insertsOnly) }
	verdicts := func() []string { return f.falseVerdicts(t.Context()) }
	retries := func() []string { return f.retryJobs(t.Context()) }
	tests := []struct {
		name, want string
		falsify    string
		look       func() []string
	}{
		{"missing at a peer", "peer-3: late-0 is missing", `select`, differences},
		{"lost by the writer", "peer-1: row-1 should not be there", `delete from memories where id = 'row-1'`, differences},
		{"other content", "row-2 (-peer +writer)", `update memories set content = 'other' where id = 'row-2'`, differences},
		{"other priority", "row-3 (-peer +writer)", `update memories set priority = 8 where id = 'row-3'`, differences},
		{"ack that never was", "peer-3 had not applied", `update batches set acked = '{peer-1,peer-2,peer-3}'`, verdicts},
		{"ack after the verdict", "in time", `update batches set decided_at = dispatched_at`, verdicts},
		{"too few acks", "is met with", `update batches set acked = '{peer-1}', needed = 3, verdict = 'not_met'; alter table batches drop constraint batches_met_with_acks;
			update batches set verdict = 'met'`, verdicts},
		{"retry lost", "and 0 jobs have", `delete from river_job where kind = 'peer_retry'`, retries},
		{"retry doubled", "and 2 jobs have", `insert into river_job (kind, args, state, queue, max_attempts) select kind, args, 'available', queue, max_attempts
			from river_job where kind = 'peer_retry'`, retries},
		{"lane forgotten", "retry none", `delete from lagging`, retries},
		{
			"entry in no batch or several", "is in 0 batches", `update batches b set entries = (select entries from batches order by lane, number limit 1)`,
			func() []string { return f.dispatchedTwice(t.Context()) },
		},
		{
			"secret in a job", "C9: table river_job holds the api key", `update river_job set args = args || jsonb_build_object('key', '` + f.secrets["api key"] + `')`,
			func() []string { return f.leaks(t.Context()) },
		},
		{
			"content in a job", "C9: table river_job holds the content", `update river_job set metadata = '{"x":"` + payloadCanary + `"}'`,
			func() []string { return f.leaks(t.Context()) },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { // one after the other: they share the tables
			before := strings.Join(test.look(), "\n")
			if test.falsify != "select" && strings.Contains(before, test.want) {
				t.Fatalf("found before anything was falsified: %s", before)
			}
			f.falsify(t, test.falsify, func() {
				if got := strings.Join(test.look(), "\n"); !strings.Contains(got, test.want) {
					t.Errorf("got %q, want it to say %q", got, test.want)
				}
			})
		})
	}
}

// falsify changes tables, looks, and puts the tables back.
func (f *fleet) falsify(t *testing.T, sql string, look func()) {
	t.Helper()
	const save = `
		create schema saved;
		create table saved.memories as table memories; create table saved.batches as table batches;
		create table saved.lagging as table lagging; create table saved.river_job as table river_job`
	const restore = `
		delete from memories; delete from batches; delete from lagging; delete from river_job;
		insert into memories table saved.memories; insert into batches table saved.batches;
		insert into lagging table saved.lagging; insert into river_job table saved.river_job;
		drop schema saved cascade`
	for _, step := range []string{save, sql} {
		if _, err := f.pool.Exec(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if _, err := f.pool.Exec(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
}
