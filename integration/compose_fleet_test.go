package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// composePause is between two writes of one writer.
	composePause = 25 * time.Millisecond

	// After every so many writes a writer waits for a busy fleet, so long at most.
	composeAwaits = 10
	composeWait   = 8 * time.Second
)

// composedFleet is a composition as a fleet, for all that checks one: its peers' logs, its tables.
type composedFleet struct {
	*fleet

	composition *composition
	load        *load

	mu       sync.Mutex
	inserted map[string]bool // ids of memories whose commit was answered, which nobody deletes
}

// asFleet looks at the composition, whose ports stay the same, as a fleet.
func (c *composition) asFleet(t *testing.T) *composedFleet {
	t.Helper()
	config := c.pool.Config()
	config.MaxConns, config.ConnConfig.ConnectTimeout = 8, 5*time.Second
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	// A paused peer applies pushes late: what counts is what is there in the end.
	f := &fleet{setup: setup{peers: 3, writes: "majority", zombies: true}, pool: pool, secrets: c.secrets, logs: t.ArtifactDir()}
	f.riverClients = func() []string { return c.riverClients(t) }
	for i := range f.setup.peers {
		id := fmt.Sprintf("peer-%d", i+1)
		f.peers = append(f.peers, &member{
			fleet: f, id: id, addr: c.address(t, id, "9077"), apiKey: c.secrets["api key"],
			client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second},
		})
	}
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
			defer cancel()
			t.Log(f.state(ctx))
		}
	})
	return &composedFleet{fleet: f, composition: c, inserted: map[string]bool{}}
}

// riverClients are the ids under which the workers that run take jobs; they name them in their logs.
func (c *composition) riverClients(t *testing.T) []string {
	t.Helper()
	started := regexp.MustCompile(`"River client started","client_id":"([^"]+)"`)
	var ids []string
	for _, id := range c.runningWorkers(t) {
		all := started.FindAllStringSubmatch(c.logsOf(t, id), -1)
		if len(all) > 0 {
			ids = append(ids, all[len(all)-1][1]) // of the newest process
		}
	}
	return ids
}

// logsOf is all that the processes of a container have logged. What a container logs to either output, docker prints to the same.
func (c *composition) logsOf(t *testing.T, id string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	out, err := c.outputOf(ctx, "logs", id)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// write is a step that stores a memory, or stores or deletes one of a few.
func (f *composedFleet) write(ctx context.Context, rng *rand.Rand, writer, n int) error {
	timer := time.NewTimer(composePause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if rng.IntN(2) == 0 {
		return f.rewrites(ctx, rng, writer, n)
	}
	if err := f.inserts(ctx, rng, writer, n); err != nil {
		return err
	}
	f.mu.Lock()
	f.inserted[fmt.Sprintf("w%d-%d", writer, n)] = true
	f.mu.Unlock()
	if n%composeAwaits == 0 {
		f.waitALittle(ctx)
	}
	return nil
}

// waitALittle keeps a writer from running away from a fleet on a busy machine: it waits until little is left to dispatch and to decide, for a while.
func (f *composedFleet) waitALittle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, composeWait)
	defer cancel()
	ticker := time.NewTicker(5 * pollEvery)
	defer ticker.Stop()
	for {
		var little bool
		err := f.pool.QueryRow(ctx, `
			select (select count(*) from (select from undispatched limit $1) u) < $1
			   and (select count(*) from (select from batches where verdict = 'pending' limit $1) b) < $1`, mostWaiting).Scan(&little)
		if err != nil || little {
			return // the next write will have the error, too
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lost is the memories whose commit was answered and which the database does not have.
func (f *composedFleet) lost(ctx context.Context) []string {
	has, err := f.stored(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var lost []string
	for id := range f.inserted {
		if _, ok := has[id]; !ok {
			lost = append(lost, "C1: the database has lost "+id)
		}
	}
	slices.Sort(lost)
	return lost
}

// lags waits until the peer, whatever others do, misses something because a push of it failed (C10).
func (f *composedFleet) lags(t *testing.T, peer string) string {
	t.Helper()
	var class string
	until(t, peer+" lags", func() []string {
		classes, err := f.strings(t.Context(), `select last_class from lagging where peer = $1 and failures > 0 limit 1`, peer)
		class = strings.Join(classes, "")
		return slices.Concat(problem(err), holds(len(classes) > 0, "it does not"))
	})
	return peer + " lags: " + class
}

// pass waits until the database's clock has gone on.
func (f *composedFleet) pass(t *testing.T, d time.Duration) {
	t.Helper()
	var end time.Time
	if err := f.pool.QueryRow(t.Context(), `select clock_timestamp() + $1::interval`, d).Scan(&end); err != nil {
		t.Fatal(err)
	}
	until(t, "the leases have run out", func() []string {
		var is bool
		err := f.pool.QueryRow(t.Context(), `select clock_timestamp() > $1`, end).Scan(&is)
		return slices.Concat(problem(err), holds(is, "they have not"))
	})
}

// takenOver waits until no batch is undecided that was dispatched before now: what a worker left was taken over.
func (f *composedFleet) takenOver(t *testing.T) {
	t.Helper()
	var now time.Time
	if err := f.pool.QueryRow(t.Context(), `select clock_timestamp()`).Scan(&now); err != nil {
		t.Fatal(err)
	}
	until(t, "what was dispatched has its verdict", func() []string {
		left, err := f.strings(t.Context(), `
			select 'batch ' || number || ' of lane ' || lane from batches where verdict = 'pending' and dispatched_at <= $1`, now)
		return slices.Concat(problem(err), left)
	})
}

// answering waits until database and peers answer, and the project's workers are healthy.
func (f *composedFleet) answering(t *testing.T) {
	t.Helper()
	until(t, "the database and all peers answer", func() []string {
		left := problem(f.pool.Ping(t.Context()))
		for _, p := range f.peers {
			_, err := p.counters(t.Context())
			left = append(left, problem(err)...)
		}
		return left
	})
}
