package jobs_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/riverqueue/river"

	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
	"quorumbox/internal/secret"
	"quorumbox/jobs"
	"quorumbox/quorum"
)

const (
	leader = "ai:leader"
	apiKey = "the key of the mesh"
)

// mesh is a fleet whose peers are reference peers behind HTTP, reached with the real client: signed, with an api key. They refuse pushes
// that are not.
type mesh struct {
	*fleet

	nodes  map[string]*node
	log    *logged
	counts *metrics.Metrics

	completed <-chan *river.Event // of all jobs
}

// setting is how a mesh differs from two peers of which all must acknowledge.
type setting struct {
	writes int                // W; 0: all
	peer   func(*peer.Config) // nil: nothing else
	jobs   func(*jobs.Config) // nil: nothing else
}

// startMesh starts two peers, a and b, and a worker. All end with the test.
func startMesh(t *testing.T, s setting) *mesh {
	t.Helper()
	m := &mesh{
		fleet: &fleet{t: t, pool: pgtest.New(t), peers: newScripted()},
		nodes: map[string]*node{}, log: &logged{}, counts: metrics.New(),
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	if err := os.WriteFile(filepath.Join(keys, leader+".pub"), public, 0o600); err != nil {
		t.Fatal(err)
	}
	clients, urls := map[string]*peer.Client{}, map[string]string{}
	for _, id := range []string{"a", "b"} {
		m.nodes[id] = newNode(t, refpeer.Config{
			ID: "ref:" + id, KeysDir: keys, APIKey: apiKey, RequireEnrollment: refpeer.On, Sync: refpeer.Off, EmbeddingDim: 3,
		})
		cfg := peer.Config{
			ID: id, URL: m.nodes[id].server.URL, SenderID: leader, SigningKey: private, APIKey: secret.New(apiKey),
			AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		}
		if s.peer != nil {
			s.peer(&cfg)
		}
		if clients[id], err = peer.New(cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(clients[id].CloseIdle)
		urls[id] = cfg.URL + peer.PushPath
	}
	m.counts.SetPeers([]string{"a", "b"})
	policy, err := quorum.NewPolicy(3, s.writes)
	if err != nil {
		t.Fatal(err)
	}
	if s.writes == 0 {
		policy.W = 3
	}
	m.run(func(c *jobs.Config) {
		c.SenderID, c.Peers, c.Policy, c.PushURLs = leader, []string{"a", "b"}, policy, urls
		c.FanOut = jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
			return clients[id].PushReport(ctx, req)
		})
		c.RetryPush = jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
			return peer.Report{Attempts: 1}, clients[id].Post(ctx, req)
		})
		c.Logger = slog.New(slog.NewJSONHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Metrics = m.counts
		if s.jobs != nil {
			s.jobs(c)
		}
	})
	var unsubscribe func()
	m.completed, unsubscribe = m.client.Subscribe(river.EventKindJobCompleted)
	t.Cleanup(unsubscribe)
	return m
}

// in is the mesh for a subtest.
func (m *mesh) in(t *testing.T) *mesh {
	t.Helper()
	sub, f := *m, *m.fleet
	f.t = t
	sub.fleet = &f
	return &sub
}

// settled waits until nothing is left to do: every batch is decided, no peer lags and every job has ended.
func (m *mesh) settled() {
	m.t.Helper()
	m.eventually("everything is settled", func() bool {
		return m.scalar(`
			select (select count(*) from undispatched) + (select count(*) from batches where verdict = 'pending') + (select count(*) from lagging)
			       + (select count(*) from river_job where finalized_at is null)`) == 0
	})
}

// logged keeps the lines of a JSON handler. Safe for concurrent use.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// lines is the attributes of the lines with a message.
func (l *logged) lines(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.text.Bytes()) {
		var attrs map[string]any
		if err := json.Unmarshal(line, &attrs); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if attrs["msg"] == message {
			delete(attrs, "time")
			delete(attrs, "msg")
			found = append(found, attrs)
		}
	}
	return found
}
