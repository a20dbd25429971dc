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
			"missing and forgotten", "peer-3 does not have store of late-1", `delete from lagging`,
			func() []string { return f.forgotten(t.Context()) },
		},
		{
			"deleted and alive", "C4: peer-2 has row-1, which is deleted", `delete from memories where id = 'row-1';
				insert into outbox (lane, namespace, kind, key) select lane, namespace, 'delete', key from outbox where key = 'row-1'`,
			func() []string { return f.resurrected(t.Context()) },
		},
		{
			"no way forward", "neither a retry nor a lease", `delete from river_job where kind = 'peer_retry'; update lagging set retry = null`,
			func() []string { return f.retryJobs(t.Context()) },
		},
		{
			"job that grows", "has arguments of", `update river_job set args = args || jsonb_build_object('x', repeat('y', 300))`,
			func() []string { return f.overgrown(t.Context()) },
		},
		{
			"push in doubt", "C6: 1 doubts about peer-1", `insert into doubts (peer, lane, from_number, to_number, until) values ('peer-1', 1, 0, 1, now())`,
			func() []string { return f.unsettled(t.Context()) },
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

// The checker sees in a peer's log where a memory went back in time, and not where it was deleted in between.
func TestCheckerOfVersions(t *testing.T) {
	t.Parallel()
	one := func(op, result, updatedAt string) applied {
		return applied{Op: op, ID: "m", Result: result, UpdatedAt: updatedAt}
	}
	for _, test := range []struct {
		name string
		log  []applied
		want string
	}{
		{"newer", []applied{one("store", "inserted", "1"), one("store", "updated", "2")}, ""},
		{"older, which lost", []applied{one("store", "inserted", "2"), one("store", "lost", "1")}, ""},
		{"deleted in between", []applied{one("store", "inserted", "2"), one("delete", "deleted", ""), one("store", "inserted", "1")}, ""},
		{"older", []applied{one("store", "inserted", "2"), one("store", "updated", "1")}, "push 0: m goes from 2 to 1"},
		{"the same again", []applied{one("store", "inserted", "1"), one("store", "updated", "2"), one("store", "updated", "2")}, "push 0: m goes from 2 to 2"},
		{"inserted twice", []applied{one("store", "inserted", "1"), one("store", "inserted", "2")}, "push 0: m is inserted again"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(backInTime(test.log), "; "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// falsify changes tables, looks, and puts the tables back.
func (f *fleet) falsify(t *testing.T, sql string, look func()) {
	t.Helper()
	const save = `
		create schema saved;
		create table saved.memories as table memories; create table saved.batches as table batches;
		create table saved.lagging as table lagging; create table saved.river_job as table river_job;
		create table saved.outbox as table outbox`
	const restore = `
		delete from memories; delete from batches; delete from lagging; delete from river_job; delete from outbox; delete from doubts;
		insert into memories table saved.memories; insert into batches table saved.batches;
		insert into lagging table saved.lagging; insert into river_job table saved.river_job;
		insert into outbox overriding system value table saved.outbox;
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
