package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"quorumbox/internal/peer"
	"quorumbox/internal/refpeer"
	"quorumbox/jobs"
)

// late are reference peers of which c applies some pushes only when it is told to, long after their sender has given them up.
type late struct {
	t     *testing.T
	peers map[string]*refpeer.Peer

	mu    sync.Mutex
	holds func(body string) bool // c does not answer a push that it says yes to, and keeps it. Nil: none
	kept  [][]byte
}

func newLate(t *testing.T) *late {
	t.Helper()
	l := &late{t: t, peers: map[string]*refpeer.Peer{}}
	for _, id := range []string{"a", "b", "c"} {
		p, err := refpeer.Open(t.Context(), refpeer.Config{ID: "host:" + id, DataDir: t.TempDir(), Sync: refpeer.Off})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		l.peers[id] = p
	}
	return l
}

// hold makes c keep the pushes whose bodies hold one of the texts.
func (l *late) hold(texts ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = func(body string) bool {
		return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(body, s) })
	}
}

func (l *late) answer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = nil
}

// holding is how many pushes c has kept.
func (l *late) holding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.kept)
}

// land lets c apply what it kept.
func (l *late) land() {
	l.mu.Lock()
	kept := l.kept
	l.kept = nil
	l.mu.Unlock()
	for _, body := range kept {
		_ = l.apply("c", body) // whatever it says, nobody listens
	}
}

func (l *late) Push(_ context.Context, id string, req peer.Request) (peer.Report, error) {
	if id == "c" && l.keep(req.Body) {
		return peer.Report{Attempts: 1, InDoubt: true}, &peer.Error{Class: peer.ClassTimeout}
	}
	return peer.Report{Attempts: 1}, l.apply(id, req.Body)
}

func (l *late) keep(body []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds == nil || !l.holds(string(body)) {
		return false
	}
	l.kept = append(l.kept, bytes.Clone(body))
	return true
}

func (l *late) apply(id string, body []byte) error {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/v1/sync/push", bytes.NewReader(body))
	req.Header.Set("X-Peer-Id", "ai:leader")
	rec := httptest.NewRecorder()
	l.peers[id].Handler().ServeHTTP(rec, req)
	var answer struct{ Skipped int }
	switch err := json.Unmarshal(rec.Body.Bytes(), &answer); {
	case err != nil || rec.Code != http.StatusOK:
		return &peer.Error{Class: peer.ClassServerError, Status: rec.Code}
	case answer.Skipped > 0:
		return &peer.Error{Class: peer.ClassSkipped, Status: http.StatusOK, Refused: answer.Skipped}
	}
	return nil
}

// state is what a peer has, as lines.
func (l *late) state(id string) []string {
	l.t.Helper()
	var lines []string
	memory := func(what string, raw []byte) {
		var m struct{ ID, Namespace, Title, Content string }
		if err := json.Unmarshal(raw, &m); err != nil {
			l.t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s/%s %s", what, m.ID, m.Namespace, m.Title, m.Content))
	}
	var live bytes.Buffer
	if err := l.peers[id].Memories(l.t.Context(), &live); err != nil {
		l.t.Fatal(err)
	}
	for raw := range bytes.Lines(live.Bytes()) {
		memory("live", raw)
	}
	rest, err := l.peers[id].State(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, raw := range rest.Archived {
		memory("archived", raw)
	}
	for _, x := range rest.Links {
		lines = append(lines, fmt.Sprintf("link %s %s %s", x.SourceID, x.Relation, x.TargetID))
	}
	for _, x := range rest.NamespaceMeta {
		lines = append(lines, fmt.Sprintf("standard of %s: %s", x.Namespace, x.StandardID))
	}
	for _, x := range rest.Pendings {
		lines = append(lines, fmt.Sprintf("pending %s: %s", x.ID, x.Status))
	}
	slices.Sort(lines)
	return lines
}

// startLate runs a worker on late peers. A push that was given up may arrive until pass is called.
func startLate(t *testing.T) (*fleet, *late) {
	t.Helper()
	l := newLate(t)
	f := start(t, func(c *jobs.Config) { c.FanOut, c.RetryPush, c.Zombie, c.Policy.W = l, l, time.Hour, 2 })
	return f, l
}

// pass ends the time in which a push that was given up may arrive.
func (f *fleet) pass() {
	f.t.Helper()
	for _, sql := range []string{
		`update doubts set until = until - interval '2 hours'`,
		`update repairs set due_at = least(due_at, now()), again_at = again_at - interval '2 hours'`,
	} {
		_, err := f.pool.Exec(f.t.Context(), sql)
		// It locks all rows, in any order, and may be the one that gives way to the worker.
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "40P01" {
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// settled waits until everybody has everything and nothing is in doubt, and lets the time for that pass.
func (f *fleet) settled() {
	f.t.Helper()
	f.eventually("everything is pushed and nothing in doubt", func() bool {
		f.pass() // also for what a repair has noted of itself
		return f.scalar(`select (select count(*) from undispatched) + (select count(*) from batches where verdict = 'pending') + (select count(*) from lagging)
			+ (select count(*) from doubts) + (select count(*) from repairs) + (select count(*) from refusals)`) == 0
	})
}

func (f *fleet) inStep() {
	f.t.Helper()
	f.eventually("everybody is in step", func() bool {
		return f.scalar(`select (select count(*) from undispatched) + (select count(*) from batches where verdict = 'pending') + (select count(*) from lagging)`) == 0
	})
}

func memoryNamed(id, ns, title, content string) string {
	return fmt.Sprintf(`select memory_store('{"id": %q, "namespace": %q, "title": %q, "content": %q, "tier": "mid", "source": "api"}')`, id, ns, title, content)
}

func linked(source, target string) string {
	return fmt.Sprintf(`select memory_link('{"source_id": %q, "target_id": %q, "relation": "related_to"}')`, source, target)
}
