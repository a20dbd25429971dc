package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
)

// laggingDatabase makes a database in which peer-b misses an entry of two minutes ago.
func laggingDatabase(t *testing.T) (url string) {
	t.Helper()
	url = pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), `
		insert into peers (id, last_error_class, last_error_at) values ('peer-a', '', null), ('peer-b', 'refused_connection', now());
		with written as (
			insert into outbox (lane, namespace, kind, key, created_at) values (3, 'n', 'delete', 'k', now() - interval '2 minutes') returning id
		)
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, decided_at, needed)
		select 3, 1, array[id], id, id, 1, 1, 0, now(), 'met', now(), 1 from written;
		insert into lagging (peer, lane, cursor, pushed_to, retry, failures) values ('peer-b', 3, 0, 0, 1, 4)`)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func TestStatusCommand(t *testing.T) {
	t.Parallel()
	url := laggingDatabase(t)
	o := runWorker(t, url, "", "", "status")
	o.want(t, exitOK, "peer-b misses 1 entry for 2m", "")
	o.want(t, exitOK, "nothing listens at the peer's address", "")
	runWorker(t, url, "", "", "status", "--check", "--max-age", "1h").want(t, exitOK, "peer-b", "")
	runWorker(t, url, "", "", "status", "--check").want(t, exitFailed, "peer-b", "worker: lagging for longer than 1m0s: peer-b")

	o = runWorker(t, url, "", "", "status", "--json", "--check", "--max-age", "90s")
	o.want(t, exitFailed, "", "lagging for longer than 1m30s: peer-b")
	var r status.Report
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Peers) != 2 || r.Peers[1].EntriesLagging != 1 || r.Verdicts.Met != 1 || r.Migrations != "" {
		t.Errorf("got %+v, want peer-b one entry behind", r)
	}
}

func TestStatusCommandOfAnUnreadableDatabase(t *testing.T) {
	t.Parallel()
	runWorker(t, pgtest.EmptyURL(t), "", "", "status").want(t, exitFailed, "", "run `worker migrate up`")
	runWorker(t, "postgres://nobody@127.0.0.1:1/none", "", "", "status").want(t, exitFailed, "", "connect to the database")
}

func TestStatusCommandTellsOfPendingMigrations(t *testing.T) {
	t.Parallel()
	url := laggingDatabase(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `delete from quorumbox_migrations where version_id = (select max(version_id) from quorumbox_migrations)`); err != nil {
		t.Fatal(err)
	}
	runWorker(t, url, "", "", "status").want(t, exitOK, "run `worker migrate up`", "")
}

// watch goes on, over a database that cannot be read for a while, until it is stopped.
func TestStatusCommandWatches(t *testing.T) {
	t.Parallel()
	url := laggingDatabase(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	args := []string{"--config", configFile(t, url, ""), "status", "--watch", "--json", "--interval", "100ms"}
	go func() {
		code <- run(ctx, args, strings.NewReader(""), stdout, &stderr)
		_ = stdout.Close()
	}()
	lines := json.NewDecoder(out)
	until := func(what string, found func(map[string]any) bool) {
		for range 100 {
			var line map[string]any
			if err := lines.Decode(&line); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if found(line) {
				return
			}
		}
		t.Fatalf("%s: not seen", what)
	}
	sees := func(line map[string]any) bool { return line["peers"] != nil }
	until("first report", sees)
	until("second report", sees)
	if _, err := conn.Exec(t.Context(), `alter table lagging rename to gone`); err != nil {
		t.Fatal(err)
	}
	until("error", func(line map[string]any) bool { return line["error"] != nil })
	if _, err := conn.Exec(t.Context(), `alter table gone rename to lagging`); err != nil {
		t.Fatal(err)
	}
	until("report after the error", sees)
	cancel()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if got := <-code; got != exitOK {
		t.Errorf("got exit code %d, stderr %s, want 0", got, stderr.String())
	}
}
