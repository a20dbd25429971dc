package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
)

// peersDatabase has peer-a, which is in step, peer-b, which fails and misses 3 entries, and peer-c, which is absent.
func peersDatabase(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	_, err = conn.Exec(t.Context(), `
		insert into peers (id, state, last_error_class, last_error_at) values
			('peer-a', 'active', '', null), ('peer-b', 'active', 'unauthorized', now()), ('peer-c', 'absent', '', null);
		insert into outbox (lane, namespace, kind, key) values (3, 'n', 'delete', 'k1'), (3, 'n', 'delete', 'k2'), (3, 'n', 'delete', 'k3');
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed)
		values (3, 1, '{1,2,3}', 1, 3, 0, 3, 1, now(), 'met', 1);
		insert into lagging (peer, lane, cursor, pushed_to, retry, failures, last_class) values
			('peer-b', 3, 0, 0, 1, 4, 'unauthorized'), ('peer-c', 3, 0, 0, null, 0, '');
		insert into repairs (peer, subject, key, lane, method, reason) values ('peer-b', 'memory', 'm', 3, 'store', 'doubt');
		insert into doubts (peer, lane, from_number, to_number, until) values ('peer-b', 3, 0, 1, now()), ('peer-b', 4, 0, 1, now());
		insert into refusals (peer, entry, lane, class) values ('peer-a', 2, 3, 'skipped')`)
	if err != nil {
		t.Fatal(err)
	}
	return url, conn
}

func TestPeersList(t *testing.T) {
	t.Parallel()
	url, _ := peersDatabase(t)
	o := runWorker(t, url, "", "", "peers", "list")
	for _, want := range []string{"peer-a  in step", "peer-b  lagging", "peer-c  absent", "REPAIRS", "unauthorized, ", "peer-b: the peer refuses the credentials"} {
		o.want(t, exitOK, want, "")
	}
	o = runWorker(t, url, "", "", "peers", "list", "--json")
	var list []status.Peer
	if err := json.Unmarshal([]byte(o.stdout), &list); err != nil || len(list) != 3 {
		t.Fatalf("got %s, %v, want three peers", o.stdout, err)
	}
	if b := list[1]; b.EntriesLagging != 3 || b.Repairs != 1 || b.Doubts != 2 || b.Failures != 4 || b.LastError.Hint == "" || list[0].Refusals != 1 {
		t.Errorf("got %+v", list)
	}
	runWorker(t, pgtest.URL(t), "", "", "peers", "list").want(t, exitOK, "no peers are known yet", "")
	runWorker(t, pgtest.EmptyURL(t), "", "", "peers", "list").want(t, exitFailed, "", "worker migrate up")
}

func TestPeersPauseAndResume(t *testing.T) {
	t.Parallel()
	url, _ := peersDatabase(t)
	runWorker(t, url, "", "", "peers", "resume", "peer-a").want(t, exitOK, "peer-a is not paused", "")
	runWorker(t, url, "", "", "peers", "pause", "peer-a").want(t, exitOK, "peer-a paused", "")
	runWorker(t, url, "", "", "peers", "pause", "peer-a").want(t, exitOK, "peer-a is paused already", "")
	runWorker(t, url, "", "", "peers", "list").want(t, exitOK, "peer-a  paused", "")
	runWorker(t, url, "", "", "peers", "resume", "peer-a").want(t, exitOK, "peer-a resumed", "")
	runWorker(t, url, "", "", "peers", "list").want(t, exitOK, "peer-a  in step", "")
}

func TestPeersWaitDrained(t *testing.T) {
	t.Parallel()
	url, conn := peersDatabase(t)
	runWorker(t, url, "", "", "peers", "wait-drained", "peer-b", "--timeout", "300ms").
		want(t, exitFailed, "", "peer-b is not drained (3 entries missing, 1 repair due, 2 doubts due): after --timeout 300ms")
	runWorker(t, url, "", "", "peers", "wait-drained", "peer-c").want(t, exitFailed, "", "peer-c is not configured, so nothing comes to it")
	runWorker(t, url, "", "", "peers", "pause", "peer-b").want(t, exitOK, "", "")
	runWorker(t, url, "", "", "peers", "wait-drained", "peer-b").want(t, exitFailed, "", "worker peers resume peer-b")
	runWorker(t, url, "", "", "peers", "wait-drained", "peer-a").
		want(t, exitFailed, "", "peer-a has everything but the entries that it refuses for good: 2 (`worker refusals list --peer peer-a`)")
	_, err := conn.Exec(t.Context(), `delete from refusals; delete from lagging; delete from repairs; delete from doubts`)
	if err != nil {
		t.Fatal(err)
	}
	runWorker(t, url, "", "", "peers", "wait-drained", "peer-b").want(t, exitOK, "peer-b has everything", "")
}

// Stopped, the command says how far it was.
func TestPeersWaitDrainedIsInterrupted(t *testing.T) {
	t.Parallel()
	url, _ := peersDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // as long as it takes to look at least once
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"--config", configFile(t, url, ""), "peers", "wait-drained", "peer-b"}, strings.NewReader(""), &stdout, &stderr)
	if code != exitFailed || stdout.Len() > 0 || strings.Contains(stderr.String(), "\x1b") {
		t.Errorf("got %d, %q and %q, want a failure without progress, as it is no terminal", code, stdout.String(), stderr.String())
	}
}

func TestPeersRemove(t *testing.T) {
	t.Parallel()
	url, _ := peersDatabase(t)
	runWorker(t, url, "", "", "peers", "remove", "peer-b").want(t, exitFailed, "", "take peer-b out of the configuration of all workers and restart them")
	configured := `peers: [{id: peer-c, url: "http://127.0.0.1:1", allow: [127.0.0.0/8]}]`
	runWorker(t, url, configured, "", "peers", "remove", "peer-c").want(t, exitFailed, "", "peer-c is in the configuration of this command")
	runWorker(t, url, "", "", "peers", "remove", "peer-c").want(t, exitOK, "peer-c removed; rows deleted: lagging 1, peers 1", "")
	runWorker(t, url, "", "", "peers", "remove", "peer-c").want(t, exitFailed, "", "no such peer: known are peer-a, peer-b")
}

func TestPeersUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"pause"}, {"resume"}, {"remove"}, {"wait-drained"}, {"pause", "a", "b"}, {"list", "x"}, {"wait-drained", "a", "--timeout", "-1s"},
	} {
		runWorker(t, "", "", "", append([]string{"peers"}, args...)...).want(t, exitUsage, "", "worker peers "+args[0])
	}
}
