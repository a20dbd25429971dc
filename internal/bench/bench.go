//go:build unix

// Package bench measures what quorumbox is promised to do, beside the same writers without it and beside the plain pattern that it replaces,
// in one run on one machine.
//
// Everything that is measured is a process of its own, as in production: Postgres, the worker, the peers; this process is the writers.
// Each measurement has a fresh database and fresh peers. The scenarios take turns, in another order each round, and what is
// compared is their medians: a machine's speed changes with the minute. A round whose peers do not hold exactly the rows that
// were committed is no measurement: [Run] fails.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/localpg"
	"quorumbox/internal/refpeer"
)

// Scenario is one thing that is measured.
type Scenario string

// The scenarios.
const (
	Bare    Scenario = "bare"    // writers insert their memory and nothing else
	Ours    Scenario = "ours"    // outbox.Store in the writer's transaction, and a worker
	Plain   Scenario = "plain"   // one River job per memory, inserted in the writer's transaction, and a worker of such jobs
	Latency Scenario = "latency" // one writer on an idle system: commit to verdict
)

// Scenarios are all of them.
func Scenarios() []Scenario { return []Scenario{Bare, Ours, Plain, Latency} }

// Signing says whether pushes are signed and signatures checked.
type Signing string

// The ways to sign.
const (
	Signed   Signing = "ed25519" // with a key made for the run, enrolled at every peer
	Unsigned Signing = "off"
)

// Config says what to measure. [Config.Validate] tells the bounds.
type Config struct {
	Program      string        // the worker's program, for the child processes
	DatabaseURL  string        // a server to make databases on; empty: a server of this run's own
	Writers      int           // concurrent writers, 1 to 150
	Duration     time.Duration // for which they write, 100ms to 10m
	Rounds       int           // 1 to 100
	Peers        int           // 1 to 64
	File         string        // JSONL file with memories; empty: generated ones
	ContentBytes int           // size of generated contents, 1 to 65,536
	Signing      Signing
	Only         []Scenario // empty: all
	LatencyRuns  int        // writes of the latency scenario, over all rounds, 1 to 100,000
	Statements   int        // how many of the server's costliest statements to show; 0: none, and they are not counted either
	Progress     func(line string)
}

// Validate returns everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	within := func(name string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s is %d: must be %d to %d", name, v, low, high))
		}
	}
	within("writers", c.Writers, 1, 150)
	within("rounds", c.Rounds, 1, 100)
	within("peers", c.Peers, 1, 64)
	within("content bytes", c.ContentBytes, 1, 65536)
	within("latency writes", c.LatencyRuns, 1, 100_000)
	within("statements", c.Statements, 0, 100)
	if c.Duration < 100*time.Millisecond || c.Duration > 10*time.Minute {
		errs = append(errs, fmt.Errorf("duration is %s: must be 100ms to 10m", c.Duration))
	}
	if c.Signing != Signed && c.Signing != Unsigned {
		errs = append(errs, fmt.Errorf("signing is %q: must be %s or %s", c.Signing, Signed, Unsigned))
	}
	for _, s := range c.Only {
		if !slices.Contains(Scenarios(), s) {
			errs = append(errs, fmt.Errorf("unknown scenario %q: choose of %v", s, Scenarios()))
		}
	}
	if c.Statements > 0 && c.DatabaseURL != "" {
		errs = append(errs, errors.New("statements are counted on the run's own server only: leave out the database URL"))
	}
	if c.Program == "" {
		errs = append(errs, errors.New("no program to run the worker and the peers with"))
	}
	return errors.Join(errs...)
}

func (c Config) scenarios() []Scenario {
	if len(c.Only) == 0 {
		return Scenarios()
	}
	return c.Only
}

// bench is one run.
type bench struct {
	cfg        Config
	dir        string // everything on disk but the server's data
	memories   *memories
	server     *localpg.Server // nil: somebody else's
	adminURL   string
	signingKey string // path; empty: unsigned
	keysDir    string // what peers enrol
}

// Run measures and reports. It ends early with ctx, leaves no process, no database and no file behind (on a server of the
// caller's: unless that is gone), and returns an error if a measurement is not valid. The report holds what was measured until then.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, fmt.Errorf("bench: %w", err)
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	b := &bench{cfg: cfg}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	if err := b.open(ctx); err != nil {
		return Report{}, fmt.Errorf("bench: %w", err)
	}
	if report.Machine, err = b.machine(ctx); err != nil {
		return report, fmt.Errorf("bench: %w", err)
	}
	report.Setup = b.setup()

	scenarios := cfg.scenarios()
	for round := 1; round <= cfg.Rounds; round++ {
		for i := range scenarios {
			scenario := scenarios[(i+round-1)%len(scenarios)]
			sample, err := b.measure(ctx, scenario, round)
			if err != nil {
				return report, fmt.Errorf("bench: round %d, %s: %w", round, scenario, err)
			}
			report.Samples = append(report.Samples, sample)
			cfg.Progress(sample.progress(cfg.Rounds))
		}
	}
	report.summarize()
	return report, nil
}

func (b *bench) open(ctx context.Context) (err error) {
	if b.memories, err = newMemories(b.cfg.File, b.cfg.ContentBytes); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "quorumbox-bench-"); err != nil {
		return err
	}
	if b.cfg.Signing == Signed {
		b.signingKey, b.keysDir = filepath.Join(b.dir, "bench.priv"), filepath.Join(b.dir, "enrolled")
		if err := refpeer.Enroll(b.keysDir, senderID, b.signingKey); err != nil {
			return err
		}
	}
	if b.adminURL = b.cfg.DatabaseURL; b.adminURL != "" {
		return nil
	}
	options := localpg.Options{Durability: localpg.Durable}
	if b.cfg.Statements > 0 {
		options.Settings = map[string]string{"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all"}
	}
	b.cfg.Progress("starting Postgres")
	if b.server, err = localpg.Start(ctx, options); err != nil {
		return err
	}
	b.adminURL = b.server.URL("postgres")
	return nil
}

func (b *bench) close(ctx context.Context) error {
	var errs []error
	if b.server != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		errs = append(errs, b.server.Stop(ctx))
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// databasePatience bounds the making and dropping of a database.
const databasePatience = time.Minute

// withDatabase gives do the URL of a new, empty database and drops it afterwards.
func (b *bench) withDatabase(ctx context.Context, do func(url string) error) (err error) {
	admin, err := pgx.Connect(ctx, b.adminURL)
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	name := "quorumbox_bench_" + uuid.NewString()[:8]
	quoted := pgx.Identifier{name}.Sanitize()
	if _, err := admin.Exec(ctx, `create database `+quoted+` encoding 'UTF8' template template0`); err != nil {
		return fmt.Errorf("make a database (the user needs the right to): %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), databasePatience)
		defer cancel()
		if _, dropErr := admin.Exec(ctx, `drop database `+quoted+` with (force)`); dropErr != nil {
			err = errors.Join(err, fmt.Errorf("drop the database %s: %w", name, dropErr))
		}
	}()
	if b.server != nil {
		// Every measurement begins with clean buffers; on somebody else's server the right to do this is missing.
		if _, err := admin.Exec(ctx, `checkpoint`); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	url, err := withDatabaseName(b.adminURL, name)
	if err != nil {
		return err
	}
	return do(url)
}

func (b *bench) setup() Setup {
	return Setup{
		Writers: b.cfg.Writers, Seconds: b.cfg.Duration.Seconds(), Rounds: b.cfg.Rounds, Peers: b.cfg.Peers, Signing: b.cfg.Signing,
		File: filepath.Base(b.cfg.File), ContentBytes: b.cfg.ContentBytes,
	}
}
