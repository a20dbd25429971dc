package page_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/jobs"
)

func count(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

const paused = `select count(*) from river_queue where paused_at is not null and name = $1`

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	addPeers(t, pool, 2)
	for _, c := range []struct {
		action, want string
		paused       int
	}{
		{"pause", `{"changed":true,"message":"peer-01 is paused"}`, 1},
		{"pause", `{"changed":false,"message":"peer-01 is paused already"}`, 1},
		{"resume", `{"changed":true,"message":"peer-01 is resumed"}`, 0},
		{"resume", `{"changed":false,"message":"peer-01 is not paused"}`, 0},
	} {
		got := ask(t, http.MethodPost, server.URL+"/api/page/peers/peer-01/"+c.action, struct{}{}, nil)
		if got.status != http.StatusOK || strings.TrimSpace(got.body) != c.want {
			t.Errorf("%s: got %s, want %s", c.action, got, c.want)
		}
		if n := count(t, pool, paused, jobs.PeerQueue("peer-01")); n != c.paused {
			t.Errorf("%s: got paused %d, want %d", c.action, n, c.paused)
		}
		// Whoever did it sees it in the next answer, however new the last one is.
		condition := "in_step"
		if c.paused == 1 {
			condition = "paused"
		}
		if got := look(t, server.URL).Peers[0].Condition; got != condition {
			t.Errorf("%s: the page says %s, want %s", c.action, got, condition)
		}
	}
}

func TestResync(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	addPeers(t, pool, 1)
	got := ask(t, http.MethodPost, server.URL+"/api/page/peers/peer-01/resync", map[string]string{"confirm": "peer-01"}, nil)
	if got.status != http.StatusOK || !strings.Contains(got.body, "peer-01 is brought the current state") {
		t.Errorf("got %s", got)
	}
	if n := count(t, pool, `select count(*) from snapshots where peer = 'peer-01' and reason = 'asked'`); n != 1 {
		t.Errorf("got %d snapshots, want 1", n)
	}
}

func TestRetryRefusals(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	addPeers(t, pool, 2)
	exec(t, pool, `
		insert into refusals (peer, entry, lane, class, next_at)
		select p, i, 3, case i when 1 then 'skipped' else 'too_large' end, now() + interval '1 hour'
		from unnest('{peer-01,peer-02}'::text[]) p, generate_series(1, 3) i`)
	for _, c := range []struct {
		body, want string
		due        int
	}{
		{`{"peer":"peer-01","class":"skipped"}`, `{"changed":true,"message":"1 entry that peer-01 refuses: tried again within a second or so"}`, 1},
		{`{"peer":"peer-01","class":"quota"}`, `{"changed":false,"message":"peer-01 refuses nothing of that kind any more"}`, 1},
		{`{"peer":"peer-01"}`, `{"changed":true,"message":"3 entries that peer-01 refuses: tried again within a second or so"}`, 3},
	} {
		got := ask(t, http.MethodPost, server.URL+"/api/page/refusals/retry", c.body, nil)
		if got.status != http.StatusOK || strings.TrimSpace(got.body) != c.want {
			t.Errorf("%s: got %s, want %s", c.body, got, c.want)
		}
		if n := count(t, pool, `select count(*) from refusals where next_at <= now()`); n != c.due {
			t.Errorf("%s: got %d due, want %d", c.body, n, c.due)
		}
	}
}

func TestResumeFanOuts(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	exec(t, pool, `insert into river_queue (name, created_at, updated_at, paused_at) values ($1, now(), now(), now())`, jobs.FanOutQueue)
	got := ask(t, http.MethodPost, server.URL+"/api/page/fan-out/resume", struct{}{}, nil)
	if got.status != http.StatusOK || count(t, pool, paused, jobs.FanOutQueue) != 0 {
		t.Errorf("got %s, want the queue resumed", got)
	}
}

// What is refused changes nothing, and says why.
func TestActionsRefused(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	addPeers(t, pool, 1)
	exec(t, pool, `insert into peers (id, state) values ('gone', 'absent')`)
	exec(t, pool, `insert into refusals (peer, entry, lane, class, next_at) values ('peer-01', 1, 3, 'skipped', now() + interval '1 hour')`)
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	const peer, retry = "/api/page/peers/peer-01/", "/api/page/refusals/retry"
	const confirmed = `{"confirm":"peer-01"}`
	for _, c := range []struct {
		name, path, body string
		change           func(*http.Request)
		status           int
		want             string
	}{
		{"pause of an unknown peer", "/api/page/peers/nobody/pause", `{}`, nil, http.StatusNotFound, "no such peer: known are gone, peer-01"},
		{"resume of an unknown peer", "/api/page/peers/nobody/resume", `{}`, nil, http.StatusNotFound, "no such peer"},
		{"resync of an unknown peer", "/api/page/peers/nobody/resync", `{"confirm":"nobody"}`, nil, http.StatusNotFound, "no such peer"},
		{"resync of an absent peer", "/api/page/peers/gone/resync", `{"confirm":"gone"}`, nil, http.StatusConflict, "gone is absent: add it to the configuration"},
		{"resync without confirmation", peer + "resync", `{}`, nil, http.StatusBadRequest, "not confirmed"},
		{"resync with another peer's id", peer + "resync", `{"confirm":"gone"}`, nil, http.StatusBadRequest, "not confirmed"},
		{"resync with an unknown field", peer + "resync", `{"confirm":"peer-01","force":true}`, nil, http.StatusBadRequest, "docs/page.md"},
		{"resync without a body", peer + "resync", ``, nil, http.StatusBadRequest, "docs/page.md"},
		{"resync with two objects", peer + "resync", confirmed + `{}`, nil, http.StatusBadRequest, "more than one"},
		{"resync as a form", peer + "resync", confirmed, header("Content-Type", "text/plain"), http.StatusUnsupportedMediaType, "application/json"},
		{"resync with a long body", peer + "resync", `{"confirm":"` + strings.Repeat("x", 5000) + `"}`, nil, http.StatusRequestEntityTooLarge, "longer than 4096 bytes"},
		{"retry without a peer", retry, `{"class":"skipped"}`, nil, http.StatusBadRequest, "name the peer"},
		{"retry of an unknown class", retry, `{"peer":"peer-01","class":"nonsense"}`, nil, http.StatusBadRequest, "none of the classes"},
		{"resume of fan-outs that no worker has worked", "/api/page/fan-out/resume", `{}`, nil, http.StatusNotFound, "not found"},
		{"unknown action", peer + "drop", `{}`, nil, http.StatusNotFound, "not found"},
		{"pause from another origin", peer + "pause", `{}`, header("Origin", "https://evil.example"), http.StatusForbidden, "cross-origin"},
		{"pause from another site", peer + "pause", `{}`, header("Sec-Fetch-Site", "cross-site"), http.StatusForbidden, "cross-origin"},
		{"resync from another origin", peer + "resync", confirmed, header("Origin", "http://127.0.0.1:1"), http.StatusForbidden, "cross-origin"},
		{"retry from another origin", retry, `{"peer":"peer-01"}`, header("Origin", "null"), http.StatusForbidden, "cross-origin"},
		{"fan-outs from another origin", "/api/page/fan-out/resume", `{}`, header("Sec-Fetch-Site", "same-site"), http.StatusForbidden, "cross-origin"},
	} {
		got := ask(t, http.MethodPost, server.URL+c.path, c.body, c.change)
		if got.status != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s: got %s, want %d with %q", c.name, got, c.status, c.want)
		}
	}
	left := fmt.Sprint(
		count(t, pool, `select count(*) from river_queue where paused_at is not null`), count(t, pool, `select count(*) from snapshots`),
		count(t, pool, `select count(*) from refusals where next_at <= now()`))
	if left != "0 0 0" {
		t.Errorf("got %s paused queues, snapshots and retried refusals, want none", left)
	}
	same := ask(t, http.MethodPost, server.URL+peer+"pause", `{}`, header("Origin", server.URL))
	if same.status != http.StatusOK {
		t.Errorf("from the page itself: got %s, want 200", same)
	}
}
