package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/child"
	"quorumbox/internal/config"
	"quorumbox/internal/refpeer"
	"quorumbox/migrations"
)

const (
	senderID = "demo-writer"

	// quorumWrites is W: a majority of the four members, the local commit being one of them.
	quorumWrites = 3

	// retryMax replaces the default of 15 s, so that the peer that comes back is found within seconds.
	retryMax = 2 * time.Second

	// softStop replaces the default of 10 s: at the end there is nothing left that is worth waiting for.
	softStop = 2 * time.Second

	// poolConns is what the demo itself uses: the import, the verdicts it waits for, and the view.
	poolConns = 8

	// startTimeout bounds the start of the worker.
	startTimeout = 30 * time.Second

	workerLog = "worker.log"
)

// peerIDs are the names of the peers. The second is the one that is killed.
func peerIDs() []string { return []string{"peer-a", "peer-b", "peer-c"} }

const victim = 1

// stage is what runs during the demo: database, peers, worker. It belongs to the goroutine of Run.
type stage struct {
	cfg   Config
	show  *screen
	fail  context.CancelCauseFunc // ends the demo when something that should run has ended
	dir   string
	pool  *pgxpool.Pool
	peers []*peerProcess
	pages string // address of the status page, "" if there are none

	closers []closer
}

// closer undoes one step.
type closer struct {
	what string
	do   func(context.Context) error
}

func (s *stage) onClose(what string, do func(context.Context) error) {
	s.closers = append(s.closers, closer{what, do})
}

// close undoes every step that was made, last first.
func (s *stage) close(ctx context.Context) error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		if err := c.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.what, err))
		}
	}
	s.closers = nil
	return errors.Join(errs...)
}

// open starts everything.
func (s *stage) open(ctx context.Context) error {
	dir, err := makeDir(ctx)
	if err != nil {
		return err
	}
	s.dir = dir.path
	s.onClose("remove "+dir.path, func(context.Context) error { return dir.remove() })

	url, err := s.openDatabase(ctx)
	if err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, url); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	if err := s.openPool(ctx, url); err != nil {
		return err
	}
	if err := s.startPeers(ctx); err != nil {
		return err
	}
	return s.startWorker(ctx, url)
}

func (s *stage) openPool(ctx context.Context, url string) error {
	poolConfig, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("parse the database URL: %w", err)
	}
	poolConfig.MaxConns = poolConns
	poolConfig.ConnConfig.RuntimeParams["application_name"] = "quorumbox demo"
	if s.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	s.onClose("close the database pool", func(context.Context) error { s.pool.Close(); return nil })
	return nil
}

// startPeers starts the peers, who know the writer's key and refuse pushes without its signature.
func (s *stage) startPeers(ctx context.Context) error {
	keys := filepath.Join(s.dir, "keys")
	if err := refpeer.Enroll(keys, senderID, s.signingKey()); err != nil {
		return err
	}
	var pids []string
	for _, id := range peerIDs() {
		p := &peerProcess{
			id:         id,
			executable: s.cfg.Executable,
			dir:        filepath.Join(s.dir, id),
			keys:       keys,
			logPath:    filepath.Join(s.dir, id+".log"),
		}
		s.onClose("stop "+id, func(ctx context.Context) error { p.stop(ctx); return nil })
		if err := p.startOnFreePort(ctx); err != nil {
			return err
		}
		s.peers = append(s.peers, p)
		pids = append(pids, fmt.Sprintf("%s (%d)", id, p.pid()))
	}
	s.show.event("peers", "%s: processes that check signatures", strings.Join(pids, ", "))
	return nil
}

func (s *stage) signingKey() string { return filepath.Join(s.dir, "signing.key") }

// workerConfig is the default configuration but for retry.max and jobs.soft_stop, both shorter.
func (s *stage) workerConfig(ctx context.Context) config.Config {
	cfg := config.Default()
	cfg.SenderID = senderID
	cfg.SigningKeyFile = s.signingKey()
	for _, p := range s.peers {
		peer := config.DefaultPeer()
		peer.ID, peer.URL = p.id, p.url()
		peer.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		cfg.Peers = append(cfg.Peers, peer)
	}
	cfg.Retry.Max = retryMax
	cfg.Jobs.SoftStop = softStop
	cfg.Admin.Listen = freeListen(ctx, cfg.Admin.Listen)
	cfg.Log.Format = config.LogText
	return cfg
}

// freeListen is the address, or one with another port where that is taken.
func freeListen(ctx context.Context, preferred string) string {
	for _, addr := range []string{preferred, "127.0.0.1:0"} {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		addr = listener.Addr().String()
		_ = listener.Close() // nobody was connected
		return addr
	}
	return preferred
}

// startWorker starts the worker and waits until it knows its peers: a peer gets what is written from then on.
func (s *stage) startWorker(ctx context.Context, url string) error {
	log, err := os.Create(filepath.Join(s.dir, workerLog))
	if err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	s.onClose("close the worker's log", func(context.Context) error { return log.Close() })

	cfg := s.workerConfig(ctx)
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("settings of the demo's worker: %w", err)
	}
	// The worker ends by its own rules, before the peers and the database do.
	workerCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		err := s.cfg.Worker(workerCtx, url, cfg, slog.New(slog.NewTextHandler(log, nil)))
		if workerCtx.Err() == nil {
			s.fail(fmt.Errorf("the worker ended: %w", cmp.Or(err, errors.New("it was not told to"))))
		}
	})
	s.onClose("stop the worker", func(context.Context) error {
		stop(errors.New("the demo is over"))
		running.Wait()
		return nil
	})

	ready := func(ctx context.Context) (bool, error) {
		var n int
		err := s.pool.QueryRow(ctx, `select count(*) from peers where state = 'active'`).Scan(&n)
		return n == len(s.peers), err
	}
	if err := poll(ctx, startTimeout, "the worker to know its peers", ready); err != nil {
		return err
	}
	s.show.event("worker", "default settings, but retry.max is %s instead of %s to keep this short", retryMax, config.Default().Retry.Max)
	s.findPages(ctx, cfg.Admin.Listen)
	return nil
}

// poll asks every 20 ms until done says yes. what is what is waited for, for the error.
func poll(ctx context.Context, timeout time.Duration, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("waited %s for %s: %w", timeout, what, context.DeadlineExceeded))
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := done(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case ok:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// explain adds the end of the worker's log to an error.
func (s *stage) explain(err error) error {
	if s.dir == "" {
		return err
	}
	if tail := child.LogTail(filepath.Join(s.dir, workerLog)); tail != "" {
		return fmt.Errorf("%w\nthe worker's log ends:\n%s", err, tail)
	}
	return err
}
