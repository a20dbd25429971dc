//go:build unix

package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// Sample is one measurement.
type Sample struct {
	Scenario Scenario `json:"scenario"`
	Round    int      `json:"round"`

	Writes       int     `json:"writes"`        // committed while it was measured
	WriteSeconds float64 `json:"write_seconds"` // first write to last commit
	TailSeconds  float64 `json:"tail_seconds"`  // last commit until every peer had everything
	CommitRate   float64 `json:"commit_rate"`   // commits a second while the writers wrote
	// Rate is writes a second over all: from the first write until every peer had everything (bare: until the last commit).
	Rate   float64   `json:"rate"`
	Commit Quantiles `json:"commit"` // of the whole transaction

	NotMet     int     `json:"not_met"`           // entries without a quorum before the deadline (they were delivered all the same)
	Batches    int     `json:"batches,omitzero"`  // that the entries went in
	FanOuts    int     `json:"fan_outs,omitzero"` // that the batches went in: each is one push to every peer
	WALBytes   float64 `json:"wal_bytes_per_write"`
	CPU        CPU     `json:"cpu_seconds_per_1000_writes"`
	WorkerPeak int64   `json:"worker_peak_rss_bytes,omitzero"`
	// Foreign is the share of all processors that was used by what is no part of the measurement; 0 where that cannot be told.
	Foreign float64 `json:"foreign_cpu_share"`

	Quorum    *LatencySample `json:"latency,omitempty"`
	Statement []Statement    `json:"statements,omitempty"`
}

// CPU is processor time by who used it.
type CPU struct {
	Postgres float64 `json:"postgres"`
	Writers  float64 `json:"writers"`
	Worker   float64 `json:"worker"`
	Peers    float64 `json:"peers"` // all of them
}

// Total is all that was used.
func (c CPU) Total() float64 { return c.Postgres + c.Writers + c.Worker + c.Peers }

func (b *bench) measure(ctx context.Context, scenario Scenario, round int) (Sample, error) {
	sample := Sample{Scenario: scenario, Round: round}
	err := b.withStack(ctx, scenario, func(s *stack) error {
		switch scenario {
		case Bare:
			return s.throughput(ctx, &sample, writeBare, "")
		case Ours:
			return s.throughput(ctx, &sample, writeOurs, oursDone)
		case Plain:
			client, err := river.NewClient(riverpgxv5.New(s.pool), &river.Config{})
			if err != nil {
				return fmt.Errorf("make a River client: %w", err)
			}
			return s.throughput(ctx, &sample, writePlain(client), plainDone)
		case Latency:
			return s.latency(ctx, &sample)
		}
		return fmt.Errorf("unknown scenario %q", scenario)
	})
	return sample, err
}

// throughput has all writers write, waits until nothing is left to do by the query done (empty: there is nothing more), and checks the peers.
func (s *stack) throughput(ctx context.Context, sample *Sample, do write, done string) error {
	if err := s.warmUp(ctx, do, done); err != nil {
		return err
	}
	if err := s.resetStatements(ctx); err != nil {
		return err
	}
	before, err := s.usage(ctx)
	if err != nil {
		return err
	}
	w, err := s.load(ctx, do)
	if err != nil {
		return errors.Join(err, s.workerProblem())
	}
	end := w.last
	if done != "" {
		if err := s.drained(ctx, done); err != nil {
			return err
		}
		end = time.Now()
	}
	after, err := s.usage(ctx)
	if err != nil {
		return err
	}
	sample.Writes = w.count
	sample.WriteSeconds = w.duration().Seconds()
	sample.TailSeconds = end.Sub(w.last).Seconds()
	sample.CommitRate = float64(w.count) / w.duration().Seconds()
	sample.Rate = float64(w.count) / end.Sub(w.first).Seconds()
	sample.Commit = quantiles(w.commits)
	sample.CPU = before.until(after, w.count)
	sample.Foreign = before.foreign(after, runtime.NumCPU())
	sample.WALBytes = float64(after.wal-before.wal) / float64(w.count)
	if sample.Statement, err = s.statements(ctx); err != nil {
		return err
	}
	if done == "" {
		return nil
	}
	if peak, err := peakRSS(s.worker.Pid()); err == nil { // not told by every system
		sample.WorkerPeak = peak
	}
	err = s.pool.QueryRow(ctx, `
		select coalesce(sum(cardinality(entries)) filter (where verdict = 'not_met'), 0), count(*), count(distinct fan_out)
		from batches`).Scan(&sample.NotMet, &sample.Batches, &sample.FanOuts)
	if err != nil {
		return fmt.Errorf("count verdicts: %w", err)
	}
	return s.verify(ctx)
}

// warmUp writes one memory and waits until it is where it should be: connections are open, and the worker works.
func (s *stack) warmUp(ctx context.Context, do write, done string) error {
	if done == oursDone {
		if err := s.registered(ctx); err != nil {
			return err
		}
	}
	if err := s.one(ctx, do); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	if done == "" {
		return nil
	}
	return s.drained(ctx, done)
}

// registered waits until the worker has taken its peers down: what was written before would not be theirs. The plain worker has no such need.
func (s *stack) registered(ctx context.Context) error {
	return s.drained(ctx, fmt.Sprintf(`select count(*) = %d from peers`, s.cfg.Peers))
}

func (s *stack) workerProblem() error {
	if s.worker == nil {
		return nil
	}
	return s.worker.alive()
}

// usage is what has been used until an instant.
type usage struct {
	postgres, writers, worker, peers time.Duration
	busy                             time.Duration // of the whole machine
	at                               time.Time
	wal                              int64 // bytes written to the server's log
}

// until returns the processor seconds per 1000 writes between two instants.
func (u usage) until(later usage, writes int) CPU {
	per := func(from, to time.Duration) float64 { return (to - from).Seconds() / float64(writes) * 1000 }
	return CPU{
		Postgres: per(u.postgres, later.postgres), Writers: per(u.writers, later.writers),
		Worker: per(u.worker, later.worker), Peers: per(u.peers, later.peers),
	}
}

// foreign is the share of all processors that others used between two instants. Without the server's own time nothing can be told.
func (u usage) foreign(later usage, cores int) float64 {
	if u.busy == 0 || u.postgres == 0 {
		return 0
	}
	own := func(u usage) time.Duration { return u.postgres + u.writers + u.worker + u.peers }
	others := (later.busy - u.busy) - (own(later) - own(u))
	return max(0, others.Seconds()/later.at.Sub(u.at).Seconds()/float64(cores))
}

// usage reads what the system tells; what it does not tell stays zero.
func (s *stack) usage(ctx context.Context) (usage, error) {
	var u usage
	if err := s.pool.QueryRow(ctx, `select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint`).Scan(&u.wal); err != nil {
		return u, fmt.Errorf("read the log's position: %w", err)
	}
	u.at = time.Now()
	u.busy, _ = busyTime()
	u.writers = ownCPUTime()
	if s.server != nil {
		u.postgres, _ = serverCPUTime(s.server.Pid())
	}
	if s.worker != nil {
		u.worker, _ = cpuTime(s.worker.Pid())
	}
	for _, p := range s.peers {
		t, _ := cpuTime(p.Pid())
		u.peers += t
	}
	return u, nil
}

// Machine is where it was measured.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	OS       string `json:"os"`
	Postgres string `json:"postgres"`
	Settings string `json:"settings"` // of the server, those that matter here
	Own      bool   `json:"own_server"`
}

func (b *bench) machine(ctx context.Context) (Machine, error) {
	m := Machine{CPU: cpuModel(), Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Own: b.server != nil}
	conn, err := pgx.Connect(ctx, b.adminURL)
	if err != nil {
		return m, fmt.Errorf("connect to the server: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, `
		select current_setting('server_version'), string_agg(name || '=' || current_setting(name), ' ' order by name)
		from pg_settings
		where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size', 'wal_sync_method')`).
		Scan(&m.Postgres, &m.Settings)
	if err != nil {
		return m, fmt.Errorf("read the server's settings: %w", err)
	}
	return m, nil
}
