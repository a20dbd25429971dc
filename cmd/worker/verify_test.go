package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
	"quorumbox/internal/verify"
)

// emptyPeer is a receiver that has nothing, the settings that name it peer-a, and a store with two memories whose entries count as delivered.
func emptyPeer(t *testing.T) (url, yaml string, conn *pgx.Conn) {
	t.Helper()
	receiver, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: t.TempDir(), Sync: refpeer.Off, AdminAgents: []string{"host:test"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(receiver.Handler())
	t.Cleanup(func() {
		server.Close()
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	})
	url = pgtest.URL(t)
	if conn, err = pgx.Connect(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	_, err = conn.Exec(t.Context(), `
		insert into peers (id) values ('peer-a');
		select memory_store(jsonb_build_object('id', i, 'namespace', 'team/notes', 'title', i, 'content', 'TOP SECRET', 'tier', 'long', 'source', 'api',
			'metadata', jsonb_build_object('scope', 'team')))
		from unnest(array['note-1', 'note-2']) i;
		delete from undispatched`)
	if err != nil {
		t.Fatal(err)
	}
	return url, fmt.Sprintf("sender_id: host:test\npeers: [{id: peer-a, url: %q, allow: [127.0.0.0/8]}]", server.URL), conn
}

func TestVerifyCommand(t *testing.T) {
	t.Parallel()
	url, yaml, conn := emptyPeer(t)
	repairs := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `select count(*) from repairs where peer = 'peer-a' and subject = 'memory' and reason = 'verify'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	do := func(args ...string) outcome {
		t.Helper()
		return runWorker(t, url, yaml, "", append([]string{"verify", "--peer", "peer-a", "--rate", "1000"}, args...)...)
	}
	o := do()
	o.want(t, exitFailed, "missing         team/notes  note-2\n", "peer-a differs in 2: --repair")
	o.want(t, exitFailed, "peer-a: 2 memories in 1 namespaces compared", "")
	o.want(t, exitFailed, "2 missing; 0 unsettled, 0 unreadable, 0 expired", "")
	do("--limit", "1").want(t, exitFailed, "... and 1 more", "")
	do("--namespace", "elsewhere").want(t, exitOK, "no difference", "")
	do("--as", "ai:nobody").want(t, exitFailed, "note: the peer does not show its archive", "")

	o = do("--json", "--limit", "1", "--links")
	var got struct {
		verify.Report

		Equal bool
		List  []verify.Difference
	}
	if err := json.Unmarshal([]byte(o.stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Equal || got.Memories != 2 || got.Differences[verify.KindMissing] != 2 || len(got.List) != 1 || repairs() != 0 {
		t.Errorf("got %s and %d repairs, want 2 missing, one of them listed, and no repairs", o.stdout, repairs())
	}
	do("--repair", "--no-wait", "--namespace", "elsewhere").want(t, exitOK, "", "")
	// Nobody repairs here.
	do("--repair", "--wait", "1ms").want(t, exitFailed, "2 repairs asked for; 2 of 2 differences left", "repairs are not done in time")
	if repairs() != 2 {
		t.Errorf("got %d repairs, want 2", repairs())
	}
	// They are under way now.
	do().want(t, exitFailed, "2 unsettled", "2 did not come to rest")
}

// With a worker the peer is equal afterwards, although it began with nothing.
func TestVerifyCommandRepairs(t *testing.T) {
	t.Parallel()
	url, yaml, conn := emptyPeer(t)
	_, err := conn.Exec(t.Context(), `
		select memory_link('{"source_id":"note-1","target_id":"note-2","relation":"related_to"}'),
		       namespace_set('{"namespace":"team/notes","standard_id":"note-1"}'),
		       pending_put('{"id":"p-1","action_type":"other","namespace":"team/notes","requested_by":"ai:x","payload":1}');
		delete from undispatched`)
	if err != nil {
		t.Fatal(err)
	}
	_, stop := startRun(t, url, yaml+"\nadmin: {listen: \"\"}", `"msg":"relay elected"`)
	runWorker(t, url, yaml, "", "verify", "--peer", "peer-a", "--rate", "1000", "--links", "--repair", "--wait", "1m").
		want(t, exitOK, "repairs asked for; 0 of 5 differences left", "")
	runWorker(t, url, yaml, "", "verify", "--peer", "peer-a", "--rate", "1000", "--links=all").want(t, exitOK, "no difference; 0 unsettled", "")
	if code := stop(); code != exitOK {
		t.Errorf("worker: got exit code %d, want 0", code)
	}
}

func TestVerifyCommandRefuses(t *testing.T) {
	t.Parallel()
	url, yaml, conn := emptyPeer(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "--peer is required"},
		{[]string{"--peer", "peer-b"}, "not among the configured peers: peer-a"},
		{[]string{"--peer", "peer-a", "--rate", "0"}, "--rate must be"},
		{[]string{"--peer", "peer-a", "--limit", "-1"}, "--limit must not be"},
		{[]string{"--peer", "peer-a", "--wait", "0s"}, "--wait must be"},
		{[]string{"--peer", "peer-a", "--links=some"}, "neither linked nor all"},
		{[]string{"--peer", "peer-a", "--no-wait"}, "no use without --repair"},
		{[]string{"--peer", "peer-a", "--delete-unknown"}, "no use without --repair"},
		{[]string{"--peer", "peer-a", "--namespace", ""}, "--namespace must not be empty"},
		{[]string{"peer-a"}, "worker verify --help"},
	} {
		runWorker(t, url, yaml, "", append([]string{"verify"}, tt.args...)...).want(t, exitUsage, "", tt.want)
	}
	if _, err := conn.Exec(t.Context(), `delete from peers`); err != nil {
		t.Fatal(err)
	}
	runWorker(t, url, yaml, "", "verify", "--peer", "peer-a").want(t, exitFailed, "", "the database does not know the peer")
	runWorker(t, pgtest.EmptyURL(t), yaml, "", "verify", "--peer", "peer-a").want(t, exitFailed, "", "run `worker migrate up`")
	runWorker(t, url, yaml+"\napi_key_file: none", "", "verify", "--peer", "peer-a").want(t, exitFailed, "", "api_key_file")
}
