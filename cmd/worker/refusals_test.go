package main

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// refusingDatabase has three refusals: entries 1 and 2 of peer-a, entry 1 of peer-b, which was long ago.
func refusingDatabase(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	_, err = conn.Exec(t.Context(), `
		insert into peers (id) values ('peer-a'), ('peer-b');
		insert into outbox (lane, namespace, kind, key) values (3, 'team/notes', 'delete', 'note-1'), (3, 'team/notes', 'delete', 'note-2');
		insert into refusals (peer, entry, lane, class, attempts, last_at, next_at) values
			('peer-a', 1, 3, 'skipped', 4, now(), now() + interval '1 hour'), ('peer-a', 2, 3, 'bad_request', 1, now(), now() + interval '1 hour'),
			('peer-b', 1, 3, 'skipped', 1, now() - interval '3 days', now() + interval '1 hour')`)
	if err != nil {
		t.Fatal(err)
	}
	return url, conn
}

func TestRefusalsCommand(t *testing.T) {
	t.Parallel()
	url, conn := refusingDatabase(t)
	left := func(condition string) (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `select count(*) from refusals where `+condition).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	o := runWorker(t, url, "", "", "refusals", "list")
	o.want(t, exitOK, "peer-a  skipped", "")
	o.want(t, exitOK, "delete  team/notes  note-2", "")
	o = runWorker(t, url, "", "", "refusals", "list", "--json", "--peer", "peer-a", "--class", "skipped")
	var list []jobs.RefusedEntry
	if err := json.Unmarshal([]byte(o.stdout), &list); err != nil || len(list) != 1 || list[0].Entry != 1 || list[0].Attempts != 4 || list[0].Key != "note-1" {
		t.Errorf("got %+v, %v, want the one that peer-a skips", list, err)
	}
	runWorker(t, url, "", "", "refusals", "list", "--since", "1h", "--peer", "peer-b").want(t, exitOK, "no entry is refused", "")
	runWorker(t, url, "", "", "refusals", "list", "--limit", "1", "2").want(t, exitOK, "note-2", "")

	runWorker(t, url, "", "", "refusals", "retry", "--dry-run", "--all").want(t, exitOK, "3 refused entries would be tried again", "")
	if n := left(`next_at <= now()`); n != 0 {
		t.Errorf("a dry run changed %d refusals", n)
	}
	runWorker(t, url, "", "", "refusals", "retry", "1").want(t, exitOK, "2 refused entries tried again", "")
	if n := left(`next_at <= now() and entry = 1`); n != 2 || left(`next_at <= now()`) != 2 {
		t.Errorf("got %d refusals of entry 1 that are due, want both and no other", n)
	}
	runWorker(t, url, "", "", "refusals", "drop", "--class", "bad_request").want(t, exitOK, "1 refused entry given up", "")
	if left(`class = 'bad_request'`) != 0 || left(`true`) != 2 {
		t.Error("drop took others, or left the one that was meant")
	}
}

func TestRefusalsCommandRefuses(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"retry"}, "name entries, --peer, --class or --since, or say --all"},
		{[]string{"drop"}, "name entries, --peer, --class or --since, or say --all"},
		{[]string{"list", "--class", "broken"}, "none of the classes of answers"},
		{[]string{"list", "x1"}, "no number of an entry"},
		{[]string{"drop", "0"}, "no number of an entry"},
		{[]string{"list", "--since", "-1h"}, "--since must not be negative"},
		{[]string{"list", "--limit", "0"}, "--limit must be 1 or more"},
	} {
		runWorker(t, url, "", "", append([]string{"refusals"}, c.args...)...).want(t, exitUsage, "", c.want)
	}
}
