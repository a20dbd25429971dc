// Package demo shows the whole of quorumbox in half a minute: a writer, a worker and three reference peers on a database of their
// own. It imports memories, kills a peer with SIGKILL in the middle, brings it back, and compares every field of every peer with the store.
//
// What runs is what runs in production: the writer's API, the relay, the River jobs, the wire protocol with signatures, peers in processes
// of their own. Only two settings differ, and the demo says so: see [workerConfig].
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"quorumbox/internal/config"
	"quorumbox/internal/secret"
)

const (
	// closeTimeout bounds the cleanup.
	closeTimeout = 30 * time.Second

	// minOutage is the least time for which the killed peer is away, so that one can see it lag.
	minOutage = 3 * time.Second

	// convergeTimeout is how long the peers may take to come into step after the last write. It is above the longest pause between two
	// retries and the lease of a lost push together, with much room for a slow machine.
	convergeTimeout = 2 * time.Minute
)

// View says how what happens is shown.
type View int

const (
	// Lines writes a line for each event, and one each second in between.
	Lines View = iota
	// Live writes a line for each event and keeps a few lines below them up to date. For a terminal.
	Live
)

// Config says what to run. Fields without a default must be set.
type Config struct {
	// DatabaseURL is a server on which the demo makes a database of its own, which it drops at the end. Nothing else there is touched.
	// Empty: a Postgres server of its own ([quorumbox/internal/localpg]).
	DatabaseURL secret.Secret

	// File holds the memories as JSON lines. Empty: the sample that comes with the program.
	File string

	// Pace is the time over which the import is spread, so that one can watch it. 0: as fast as it goes.
	Pace time.Duration

	// Executable is a program that runs a reference peer when it is called with "peer" and that command's flags.
	Executable string

	// Worker runs a worker with the settings until its context ends, and returns nil then.
	Worker func(ctx context.Context, url string, cfg config.Config, logger *slog.Logger) error

	// Linger is called with the address of the status page ("" if there are none) once all is shown, while everything still runs. Nil: the
	// demo ends at once.
	Linger func(ctx context.Context, pages string) error

	// Out gets what is shown.
	Out  io.Writer
	View View
}

func (c Config) validate() error {
	switch {
	case c.Executable == "" || c.Worker == nil || c.Out == nil:
		return errors.New("demo: Executable, Worker and Out must be set")
	case c.Pace < 0 || c.Pace > time.Hour:
		return fmt.Errorf("the pace is %s: want 0 (as fast as it goes) to 1h", c.Pace)
	}
	return nil
}

// Run shows it all and cleans up after itself: processes, folders and the database are gone when it returns, also after an error and when
// ctx ends, which makes it return ctx's cause. The summary says what was seen as far as it came; [Summary.Equal] is the verdict.
// A peer does not outlive the demo on Linux, however the demo dies; the folders that a killed one leaves behind are removed by the next.
func Run(ctx context.Context, cfg Config) (summary Summary, err error) {
	if err := cfg.validate(); err != nil {
		return Summary{}, err
	}
	source, err := openSource(cfg.File)
	if err != nil {
		return Summary{}, err
	}
	parent := ctx
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	show := newScreen(cfg.Out, cfg.View)
	s := &stage{cfg: cfg, show: show, fail: fail}
	defer func() {
		show.stop()
		if ctx.Err() != nil && err != nil {
			err = context.Cause(ctx) // what followed from it says less
		}
		if err != nil && parent.Err() != nil {
			err = fmt.Errorf("ended early: %w", err)
		}
		if err != nil && parent.Err() == nil {
			err = s.explain(err)
		}
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if closeErr := s.close(closeCtx); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", closeErr))
		}
	}()

	show.event("demo", "one writer, %d peers; quorum: %d of %d have a write, the local commit being one",
		len(peerIDs()), quorumWrites, 1+len(peerIDs()))
	if err := s.open(ctx); err != nil {
		return Summary{}, err
	}
	p := &play{stage: s, source: source}
	summary, err = p.run(ctx)
	if err != nil {
		return summary, err
	}
	show.stop()
	summary.print(show)
	if cfg.Linger != nil {
		return summary, cfg.Linger(ctx, s.pages)
	}
	return summary, nil
}
