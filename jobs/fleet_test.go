package jobs_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
	"quorumbox/outbox"
	"quorumbox/quorum"
)

// scripted is a set of peers that answer as they are told and remember what they applied.
type scripted struct {
	mu      sync.Mutex
	answer  map[string]func(ctx context.Context) error // nil: acknowledge
	refused map[string][]string                        // by peer: ids that it skips
	breaks  map[string][]string                        // by peer: ids at which it breaks, whatever comes with them
	applied map[string][]string                        // by peer: "store a", "delete a"
	pushes  map[string]int
}

func newScripted() *scripted {
	return &scripted{
		answer: map[string]func(context.Context) error{}, refused: map[string][]string{}, breaks: map[string][]string{}, applied: map[string][]string{}, pushes: map[string]int{},
	}
}

// refuse makes the peer c skip the ids from now on, and say so.
func (s *scripted) refuse(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused["c"] = ids
}

// breakAt makes the peer c answer 500 to every push that holds one of the ids.
func (s *scripted) breakAt(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks["c"] = ids
}

func (s *scripted) set(peerID string, answer func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[peerID] = answer
}

func (s *scripted) Push(ctx context.Context, peerID string, req peer.Request) (peer.Report, error) {
	return peer.Report{Attempts: 1}, s.push(ctx, peerID, req)
}

func (s *scripted) push(ctx context.Context, peerID string, req peer.Request) error {
	s.mu.Lock()
	answer := s.answer[peerID]
	s.pushes[peerID]++
	s.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return err
		}
	}
	var body struct {
		Memories  []struct{ ID, Title string }
		Deletions []string
		Links     []struct {
			Source string `json:"source_id"`
			Target string `json:"target_id"`
		}
	}
	if err := json.Unmarshal(req.Body, &body); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range body.Memories {
		if slices.Contains(s.breaks[peerID], m.ID) {
			return &peer.Error{Class: peer.ClassServerError, Status: 500}
		}
	}
	skipped := 0
	apply := func(what, id string) {
		if slices.Contains(s.refused[peerID], id) {
			skipped++
			return
		}
		s.applied[peerID] = append(s.applied[peerID], what+" "+id)
	}
	for _, m := range body.Memories {
		apply("store", m.ID)
	}
	for _, id := range body.Deletions {
		apply("delete", id)
	}
	for _, l := range body.Links {
		apply("link", l.Source+" to "+l.Target)
	}
	if skipped > 0 {
		return &peer.Error{Class: peer.ClassSkipped, Status: 200, Refused: skipped}
	}
	return nil
}

func (s *scripted) got(peerID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.applied[peerID])
}

func (s *scripted) count(peerID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushes[peerID]
}

func refusing(class peer.Class) func(context.Context) error {
	return func(context.Context) error { return &peer.Error{Class: class} }
}

// fleet is one worker in this process: relay, sweeper and River client on a database of its own.
type fleet struct {
	t      *testing.T
	pool   *pgxpool.Pool
	peers  *scripted
	client *river.Client[pgx.Tx]
	tracer trace.Tracer // of the relay, or nil
}

// start runs a worker with the peers a, b and c until the test ends.
func start(t *testing.T, change ...func(*jobs.Config)) *fleet {
	t.Helper()
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	f.run(change...)
	return f
}

// run runs a worker until stop is called or the test ends.
func (f *fleet) run(change ...func(*jobs.Config)) (stop func()) {
	t := f.t
	t.Helper()
	cfg := jobs.Config{
		SenderID: "ai:leader", Peers: []string{"a", "b", "c"}, Policy: quorum.Policy{N: 4, W: 3},
		FanOut: f.peers, RetryPush: f.peers,
		Retry:     jobs.Schedule{Initial: 20 * time.Millisecond, Max: 100 * time.Millisecond},
		Redeliver: jobs.Schedule{Initial: 50 * time.Millisecond, Max: 200 * time.Millisecond},
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if f.client, err = jobs.NewClient(f.pool, cfg); err != nil {
		t.Fatal(err)
	}
	if err := jobs.RegisterPeers(t.Context(), f.pool, cfg.Peers); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := f.client.Start(ctx); err != nil {
		t.Fatal(err)
	}
	relay := outbox.NewRelay(f.pool, jobs.Enqueuer{Client: f.client}, outbox.RelayConfig{Lease: cfg.Lease, Tracer: f.tracer})
	sweeper := jobs.NewSweeper(f.pool, f.client, cfg)
	var loops sync.WaitGroup
	loops.Go(func() { _ = relay.Run(ctx) })
	loops.Go(func() { _ = sweeper.Run(ctx) })
	client := f.client
	stop = sync.OnceFunc(func() {
		stopCtx, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancelStop()
		if err := client.StopAndCancel(stopCtx); err != nil {
			t.Errorf("stop River: %v", err)
		}
		cancel()
		loops.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (f *fleet) store(ids ...string) []outbox.EntryID {
	f.t.Helper()
	var memories []outbox.Memory
	for _, id := range ids {
		ns, id, ok := strings.Cut(id, ":")
		if !ok {
			ns, id = "ns", ns
		}
		memories = append(memories, outbox.Memory{ID: id, Namespace: ns, Title: id, Content: "content"})
	}
	var entries []outbox.EntryID
	f.inTx(func(tx pgx.Tx) error {
		stored, err := outbox.StoreMany(f.t.Context(), tx, memories)
		for _, s := range stored {
			entries = append(entries, s.Entry)
		}
		return err
	})
	return entries
}

func (f *fleet) inTx(do func(tx pgx.Tx) error) {
	f.t.Helper()
	if err := pgx.BeginFunc(f.t.Context(), f.pool, do); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) await(entries ...outbox.EntryID) outbox.Verdict {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	v, err := outbox.Await(ctx, f.pool, entries...)
	if err != nil {
		f.dump()
		f.t.Fatal(err)
	}
	return v
}

func (f *fleet) scalar(sql string) (n int) {
	f.t.Helper()
	if err := f.pool.QueryRow(f.t.Context(), sql).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fleet) exec(sql string) {
	f.t.Helper()
	if _, err := f.pool.Exec(f.t.Context(), sql); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) lagging() int { return f.scalar(`select count(*) from lagging`) }

// eventually polls cond and prints the tables if it never holds.
func (f *fleet) eventually(what string, cond func() bool) {
	f.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			f.dump()
			f.t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
}

func (f *fleet) dump() {
	for _, table := range []string{"batches", "undispatched", "lagging", "refusals", "repairs", "snapshots", "river_job"} {
		rows, err := f.pool.Query(context.WithoutCancel(f.t.Context()), `select to_jsonb(t)::text from `+table+` t`)
		if err != nil {
			f.t.Log(err)
			continue
		}
		list, _ := pgx.CollectRows(rows, pgx.RowTo[string])
		f.t.Logf("%s:\n%s", table, strings.Join(list, "\n"))
	}
}

func stores(ids ...string) (list []string) {
	for _, id := range ids {
		list = append(list, "store "+id)
	}
	return list
}
