package page_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/heartbeat"
	"quorumbox/internal/page"
	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	for _, c := range []struct {
		method, path, contentType, want string
		status                          int
	}{
		{http.MethodGet, "/", "text/html; charset=utf-8", "<title>quorumbox</title>", http.StatusOK},
		{http.MethodGet, "/page/app.js", "text/javascript; charset=utf-8", "import", http.StatusOK},
		{http.MethodGet, "/page/style.css", "text/css; charset=utf-8", "prefers-color-scheme", http.StatusOK},
		{http.MethodGet, "/page/icon.svg", "image/svg+xml", "<svg", http.StatusOK},
		{http.MethodGet, "/page/", "text/plain", "not found", http.StatusNotFound},
		{http.MethodGet, "/page/index.html", "text/plain", "not found", http.StatusNotFound},
		{http.MethodGet, "/page/../page.go", "text/plain", "not found", http.StatusNotFound},
		{http.MethodGet, "/none", "text/plain", "not found", http.StatusNotFound},
		{http.MethodPost, "/", "text/plain", "Method Not Allowed", http.StatusMethodNotAllowed},
		{http.MethodPost, "/api/page", "text/plain", "Method Not Allowed", http.StatusMethodNotAllowed},
		{http.MethodGet, "/api/page/peers/a/pause", "text/plain", "Method Not Allowed", http.StatusMethodNotAllowed},
	} {
		got := ask(t, c.method, server.URL+c.path, nil, nil)
		if got.status != c.status || !strings.HasPrefix(got.header.Get("Content-Type"), c.contentType) || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: got %s %s, want %d %s with %q", c.method, c.path, got.header.Get("Content-Type"), got, c.status, c.contentType, c.want)
		}
		policy := got.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s %s: got the policy %q, want %q in it", c.method, c.path, policy, part)
			}
		}
	}
	first := ask(t, http.MethodGet, server.URL+"/page/app.js", nil, nil)
	again := ask(t, http.MethodGet, server.URL+"/page/app.js", nil, func(r *http.Request) { r.Header.Set("If-None-Match", first.header.Get("Etag")) })
	if again.status != http.StatusNotModified {
		t.Errorf("got %s for a file that the browser has, want 304", again)
	}
}

// view is a part of the answer, by the names that docs/page.md promises.
type view struct {
	Health   string
	Summary  string
	ServedBy string `json:"served_by"`
	Lanes    int
	Warnings []struct{ Code, Health, Text string }
	Peers    []struct {
		ID, State, Condition string
		Lanes                []struct {
			Lane    int
			Entries int64
			Age     float64 `json:"age_seconds"`
		}
		LastError *struct{ Class, Hint string } `json:"last_error"`
		Refused   []struct {
			Class, Hint string
			Entries     int64
		}
		Snapshot *struct {
			Phase         string
			Pushed, Total int64
		}
	}
	Workers []struct {
		ID, Host, Version string
		Alive             bool
		Leases            map[string]int64
	}
	Recent struct {
		Step   float64 `json:"step_seconds"`
		Met    []*int64
		NotMet []*int64   `json:"not_met"`
		P50    []*float64 `json:"p50_ms"`
		P99    []*float64 `json:"p99_ms"`
		Minute struct {
			Met    int64
			NotMet map[string]int64 `json:"not_met"`
			P50    *float64         `json:"p50_ms"`
		}
	}
}

func look(t *testing.T, url string) (v view) {
	t.Helper()
	got := ask(t, http.MethodGet, url+"/api/page", nil, nil)
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %s", got)
	}
	if err := json.Unmarshal([]byte(got.body), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAPIWithoutPeers(t *testing.T) {
	t.Parallel()
	server, _ := serve(t)
	v := look(t, server.URL)
	if v.Peers == nil || len(v.Peers) != 0 || v.Workers == nil || len(v.Recent.Met) != page.Points || v.ServedBy != "worker-1" || v.Lanes != 32 {
		t.Errorf("got %+v, want empty lists and a series of %d", v, page.Points)
	}
	if v.Health != "warns" || len(v.Warnings) != 1 || v.Warnings[0].Code != "no_worker" {
		t.Errorf("got %s, %+v, want no worker", v.Health, v.Warnings)
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	lead(t, pool)
	addPeers(t, pool, 6)
	traffic(t, pool, 100, 5, "met", "")
	kill(t, pool, "peer-02", 20)
	exec(t, pool, `update peers set state = 'absent' where id = 'peer-03'; `)
	exec(t, pool, `insert into river_queue (name, created_at, updated_at, paused_at) values ($1, now(), now(), now())`, jobs.PeerQueue("peer-04"))
	exec(t, pool, `insert into snapshots (peer, reason, phase, settled, pushed, total) values ('peer-05', 'new', 'memories', true, 300, 1000)`)
	exec(t, pool, `insert into refusals (peer, entry, lane, class) values ('peer-06', 1, 3, 'skipped'), ('peer-06', 2, 3, 'skipped'), ('peer-06', 3, 4, 'too_large')`)
	exec(t, pool, `update workers set seen_at = now() - $1::interval where id = 'worker-2'`, heartbeat.Silent+time.Second)
	v := look(t, server.URL)
	var conditions []string
	for _, p := range v.Peers {
		conditions = append(conditions, p.ID+" "+p.Condition)
	}
	want := []string{"peer-01 in_step", "peer-02 lagging", "peer-03 absent", "peer-04 paused", "peer-05 snapshot", "peer-06 in_step"}
	if diff := cmp.Diff(want, conditions); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	dead := v.Peers[1]
	if len(dead.Lanes) != 20 || dead.Lanes[5].Lane != 5 || dead.Lanes[5].Entries < 1 || dead.Lanes[0].Age < 50 {
		t.Errorf("got the lanes %+v, want 20 that lag", dead.Lanes)
	}
	if dead.LastError == nil || dead.LastError.Class != "refused_connection" || dead.LastError.Hint != peer.ClassRefusedConnection.Hint() {
		t.Errorf("got the last error %+v", dead.LastError)
	}
	if s := v.Peers[4].Snapshot; s == nil || s.Phase != "memories" || s.Pushed != 300 || s.Total != 1000 {
		t.Errorf("got the snapshot %+v", s)
	}
	if r := v.Peers[5].Refused; len(r) != 2 || r[0].Class != "skipped" || r[0].Entries != 2 || r[0].Hint == "" || r[1].Class != "too_large" {
		t.Errorf("got the refusals %+v", r)
	}
	if len(v.Workers) != 2 || !v.Workers[0].Alive || v.Workers[1].Alive || v.Workers[0].Host != "node-1" || v.Workers[0].Leases["lanes"] != 0 {
		t.Errorf("got the workers %+v, want the second one silent", v.Workers)
	}
	if v.Health != "warns" || len(v.Warnings) != 1 || v.Warnings[0].Code != "worker_silent" {
		t.Errorf("got %s, %+v, want a silent worker", v.Health, v.Warnings)
	}
	if !strings.HasPrefix(v.Summary, "peer-02 misses") {
		t.Errorf("got the summary %q", v.Summary)
	}
	m := v.Recent.Minute
	if m.Met < 200 || m.P50 == nil || *m.P50 < 5 || *m.P50 > 12 {
		t.Errorf("got the last minute %+v, want some 480 entries in 6 to 10 ms", m)
	}
}

// Everything of the whole fleet that somebody should know.
func TestWarnings(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	lead(t, pool)
	addPeers(t, pool, 1)
	traffic(t, pool, 40, 2, "not_met", "timeout")
	exec(t, pool, `delete from river_leader`)
	exec(t, pool, `insert into river_queue (name, created_at, updated_at, paused_at) values ($1, now(), now(), now())`, jobs.FanOutQueue)
	exec(t, pool, `insert into undispatched (lane, entry, bytes) select lane, id, 1 from outbox order by id limit 1`)
	exec(t, pool, `
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, dispatched_at)
		select 0, 100000, '{1}', 1, 1, 1, 100000, 1, now(), now() - interval '1 minute'`)
	exec(t, pool, `drop view xmin_holders`)
	exec(t, pool, `create view xmin_holders as
		select 'transaction'::text as kind, 1 as pid, ''::text as name, ''::text as state, now() - interval '5 minutes' as since, ''::text as oldest, 1 as transactions`)
	v := look(t, server.URL)
	var codes []string
	for _, w := range v.Warnings {
		codes = append(codes, w.Code)
	}
	if diff := cmp.Diff([]string{"no_worker", "fan_out_paused", "undispatched", "undecided", "quorum_missed", "oldest_xmin"}, codes); diff != "" {
		t.Errorf("(-want +got):\n%s\n%+v", diff, v.Warnings)
	}
	if v.Health != "fails" || v.Recent.Minute.NotMet["timeout"] == 0 {
		t.Errorf("got %s, %+v", v.Health, v.Recent.Minute)
	}
}

// However many look at once, the database is asked once; and again once an answer is old.
func TestViewersShareAReading(t *testing.T) {
	t.Parallel()
	server, pool := serve(t)
	bodies := make([]string, 10)
	var viewers sync.WaitGroup
	for i := range bodies {
		viewers.Go(func() { bodies[i] = ask(t, http.MethodGet, server.URL+"/api/page", nil, nil).body })
	}
	viewers.Wait()
	slices.Sort(bodies)
	// A busy machine may need longer than an answer is kept for to ask ten times.
	if n := len(slices.Compact(slices.Clone(bodies))); n > 3 {
		t.Errorf("got %d different answers for ten viewers at once, want one, or few", n)
	}
	addPeers(t, pool, 1)
	for end := time.Now().Add(time.Minute); len(look(t, server.URL).Peers) == 0; {
		if time.Now().After(end) {
			t.Fatal("the answer stays as it was")
		}
	}
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	server := serveOn(t, pool)
	exec(t, pool, `drop table lagging`)
	got := ask(t, http.MethodGet, server.URL+"/api/page", nil, nil)
	if got.status != http.StatusServiceUnavailable || got.body != `{"error":"the database cannot be read: see the worker's log"}`+"\n" {
		t.Errorf("got %s, want 503", got)
	}
	exec(t, pool, `drop table peers cascade`)
	got = ask(t, http.MethodPost, server.URL+"/api/page/peers/a/pause", nil, nil)
	if got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "relation") {
		t.Errorf("got %s, want 503 without what the database said", got)
	}
}
