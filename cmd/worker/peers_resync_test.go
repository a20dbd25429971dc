package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
)

// resync runs the command alone.
func resync(t *testing.T, url string, args ...string) (string, error) {
	t.Helper()
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"peers", "resync", "--config", configFile(t, url, "")}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPeersResync(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if _, err := conn.Exec(t.Context(), `insert into peers (id, state) values ('peer-a', 'active'), ('peer-b', 'absent')`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"peer-a"}, "say --yes"},
		{[]string{"peer-c", "--yes"}, "known are peer-a, peer-b"},
		{[]string{"peer-b", "--yes"}, "peer-b is absent"},
	} {
		if _, err := resync(t, url, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want a refusal with %q", c.args, err, c.want)
		}
	}
	out, err := resync(t, url, "peer-a", "--yes")
	if err != nil || !strings.Contains(out, "peer-a is brought the current state") {
		t.Errorf("got %q, %v", out, err)
	}
	var n, lanes int
	err = conn.QueryRow(t.Context(), `
		select (select count(*) from snapshots where peer = 'peer-a' and reason = 'asked' and phase = 'deletions'),
		       (select count(*) from lagging where peer = 'peer-a' and retry is null and not_before > now() + interval '50 years')`).Scan(&n, &lanes)
	if err != nil || n != 1 || lanes != 32 {
		t.Errorf("got %d snapshots and %d parked lanes, %v, want 1 and 32", n, lanes, err)
	}
}
