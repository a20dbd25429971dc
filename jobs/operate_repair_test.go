package jobs_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// enqueued is a row of repairs; In is the namespace whose lane it is in.
type enqueued struct{ Subject, Key, Method, Reason, In string }

func TestEnqueueRepairs(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	_, err := pool.Exec(t.Context(), `
		insert into peers (id) values ('a');
		select memory_store(jsonb_build_object('id', m.id, 'namespace', 'team/' || m.id, 'title', 't', 'content', 'c', 'tier', 'long', 'source', 'api'))
		from unnest(array['live', 'deleted', 'archived']) m (id);
		select memory_delete('deleted');
		select memory_archive('archived');
		select outbox_append('apps', 'store', 'foreign',
			'{"id":"foreign","namespace":"apps","title":"t","content":"c","tier":"long","source":"api"}', null, null);
		select pending_put('{"id":"p","action_type":"other","namespace":"team/p","requested_by":"ai:x","payload":{}}');
		insert into repairs (peer, subject, key, lane, method, reason, due_at)
		values ('a', 'memory', 'archived', 0, 'renew', 'doubt', '2030-01-01'), ('a', 'memory', 'live', 0, 'store', 'doubt', '2030-01-01'),
		       ('a', 'memory', 'deleted', 0, 'store', 'doubt', '2020-01-01')`)
	if err != nil {
		t.Fatal(err)
	}
	subjects := []jobs.Subject{
		{Kind: jobs.SubjectMemory, Key: "live", Namespace: "elsewhere", Method: jobs.RepairRenew},
		{Kind: jobs.SubjectMemory, Key: "deleted", Namespace: "elsewhere", Method: jobs.RepairRenew},
		{Kind: jobs.SubjectMemory, Key: "archived", Namespace: "elsewhere", Method: jobs.RepairStore},
		{Kind: jobs.SubjectMemory, Key: "unknown", Namespace: "elsewhere", Method: jobs.RepairDelete},
		{Kind: jobs.SubjectMemory, Key: "foreign", Namespace: "apps", Method: jobs.RepairDelete},
		{Kind: jobs.SubjectPending, Key: "p", Namespace: "elsewhere", Method: jobs.RepairStore},
		{Kind: jobs.SubjectNamespace, Key: "team/live", Method: jobs.RepairStore},
	}
	n, err := jobs.EnqueueRepairs(t.Context(), pool, "a", subjects)
	if err != nil || n != int64(len(subjects)) {
		t.Fatalf("got %d, %v, want %d", n, err, len(subjects))
	}
	rows, err := pool.Query(t.Context(), `
		select r.subject, r.key, r.method, r.reason, (
			select string_agg(n.name, ' ')
			from unnest(array['team/live', 'team/deleted', 'team/archived', 'team/p', 'elsewhere', 'apps']) n (name)
			where outbox_lane(n.name) = r.lane)
		from repairs r order by r.subject, r.key`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[enqueued])
	if err != nil {
		t.Fatal(err)
	}
	want := []enqueued{
		{"memory", "archived", "renew", "doubt", "team/archived"}, // it is renewed as it was to be, and its time stays
		{"memory", "deleted", "renew", "doubt", "team/deleted"},
		{"memory", "foreign", "renew", "verify", "apps"},
		{"memory", "live", "renew", "doubt", "team/live"},
		{"memory", "unknown", "renew", "verify", "elsewhere"},
		{"namespace", "team/live", "store", "verify", "team/live"},
		{"pending", "p", "store", "verify", "team/p"},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("repairs (-got +want):\n%s", diff)
	}
	var waiting int
	var buried []string
	err = pool.QueryRow(t.Context(), `
		select (select count(*) from repairs where due_at = '2030-01-01' or key = 'deleted' and due_at > now() - interval '1 hour'),
		       (select array_agg(id order by id) from tombstones)`).Scan(&waiting, &buried)
	if err != nil || waiting != 3 || !cmp.Equal(buried, []string{"archived", "deleted", "unknown"}) {
		t.Errorf("got %d repairs with the time that they should have and tombstones of %v, %v, want 3, and that of the unknown one", waiting, buried, err)
	}

	if n, err := jobs.EnqueueRepairs(t.Context(), pool, "a", nil); n != 0 || err != nil {
		t.Errorf("nothing: got %d, %v, want 0", n, err)
	}
	if _, err := jobs.EnqueueRepairs(t.Context(), pool, "nobody", subjects); err == nil {
		t.Error("repairs of an unknown peer were taken")
	}
}
