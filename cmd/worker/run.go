package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"quorumbox/internal/admin"
	"quorumbox/internal/config"
	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
	"quorumbox/internal/tracing"
	"quorumbox/internal/verify"
	"quorumbox/jobs"
	"quorumbox/migrations"
	"quorumbox/outbox"
)

// leaseMargin is by how much a dispatched batch stays leased beyond the ack timeout: half of it for a worker to take up the job, half of it to
// record the verdict. It is most of what a takeover after a SIGKILL takes.
const leaseMargin = 1500 * time.Millisecond

func newRunCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Replicate until told to stop (SIGINT or SIGTERM)",
		Long: `Replicate until told to stop. Any number of workers may run beside each other on one
database. On SIGINT or SIGTERM a worker takes no more jobs, lets those that run end
(jobs.soft_stop), cancels those that do not, and hands over what is left to the others. A
second signal ends it at once; the others take over when its leases have run out.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			cfg, url, err := loadWithDatabase(cmd)
			if err != nil {
				return err
			}
			if err := migrations.Check(ctx, url); err != nil {
				return err
			}
			logger := newLogger(cfg.Log, cmd.ErrOrStderr())
			pool, err := openFollowingPool(ctx, cfg.Database, "quorumbox worker", warnings(logger))
			if err != nil {
				return err
			}
			defer pool.Close()
			w, err := newWorker(pool, cfg, logger)
			if err != nil {
				return err
			}
			return w.run(ctx)
		},
	}
}

// worker is one member of the fleet: relay, sweeper, pruner and River client.
type worker struct {
	cfg     config.Config
	logger  *slog.Logger
	pool    *pgxpool.Pool
	peers   map[string]*peer.Client
	client  *river.Client[pgx.Tx]
	relay   *outbox.Relay
	sweeper *jobs.Sweeper
	pruner  *jobs.Pruner
	verify  *verify.Loop      // nil: none
	pages   *admin.Server     // nil: none
	traces  *tracing.Provider // nil: none
}

func newWorker(pool *pgxpool.Pool, cfg config.Config, logger *slog.Logger) (_ *worker, err error) {
	w := &worker{cfg: cfg, logger: logger, pool: pool}
	turns := newTurns(cfg)
	counts := newMetrics(pool, cfg, logger)
	if w.traces, err = newTraces(cfg, counts, logger); err != nil {
		return nil, err
	}
	defer w.dropTracesUnless(&err)
	if w.peers, err = newTracedPeers(cfg, warnings(logger), observing(counts), w.tracer()); err != nil {
		return nil, err
	}
	policy, err := cfg.Policy()
	if err != nil {
		return nil, err
	}
	rules, err := cfg.QuorumRules()
	if err != nil {
		return nil, err
	}
	relayRule := rules.Match
	if rules.Len() == 1 {
		relayRule = nil // all namespaces are alike: the relay need not look at them
	}
	jobsConfig := jobs.Config{
		SenderID: cfg.SenderID,
		Peers:    cfg.PeerIDs(),
		Policy:   policy,
		Rules:    rules,
		PushURLs: pushURLs(cfg),
		FanOut: jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
			return w.peers[id].PushReport(ctx, req)
		}),
		RetryPush: jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
			return peer.Report{Attempts: 1}, w.peers[id].Post(ctx, req)
		}),
		AckTimeout:         cfg.Quorum.AckTimeout,
		Grace:              cfg.Quorum.Grace,
		Lease:              rules.MaxAckTimeout() + leaseMargin,
		Retry:              jobs.Schedule{Initial: cfg.Retry.Initial, Max: cfg.Retry.Max, Hold: cfg.Retry.Hold},
		Zombie:             cfg.Retry.Zombie,
		MaxItems:           cfg.FanOut.MaxItems,
		MaxBytes:           cfg.FanOut.MaxBytes,
		FanOutWorkers:      cfg.FanOut.Workers,
		RetryWorkers:       cfg.Retry.Workers,
		CatchupRates:       catchupRates(cfg),
		JobTimeout:         cfg.Jobs.Timeout,
		RescueAfter:        cfg.Jobs.RescueAfter,
		CompletedRetention: cfg.Jobs.CompletedRetention,
		SoftStop:           cfg.Jobs.SoftStop,
		SweepTurned:        turns.sweeper,
		QueueTurned:        turns.queue,
		Logger:             logger,
		Metrics:            counts,
		Tracer:             w.tracer(),
	}
	if w.client, err = jobs.NewClient(pool, jobsConfig); err != nil {
		return nil, err
	}
	w.relay = outbox.NewRelay(pool, jobs.Enqueuer{Client: w.client}, outbox.RelayConfig{
		Lease:    jobsConfig.Lease,
		PollMin:  cfg.Relay.PollMin,
		PollMax:  cfg.Relay.PollMax,
		MaxItems: cfg.FanOut.MaxItems,
		MaxBytes: cfg.FanOut.MaxBytes,
		Rule:     relayRule,
		Turned:   turns.relay,
		Logger:   logger,
		Tracer:   w.tracer(),
	})
	w.sweeper = jobs.NewSweeper(pool, w.client, jobsConfig)
	w.pruner = jobs.NewPruner(pool, jobs.PruneConfig{
		History:        cfg.Retention.History,
		Tombstones:     cfg.Retention.Tombstones,
		BacklogEntries: int64(cfg.Retention.BacklogEntries),
		BacklogAge:     cfg.Retention.BacklogAge,
		Overdue: func(ctx context.Context, tx pgx.Tx, id string) error {
			return jobs.SwitchToSnapshot(ctx, tx, id, jobs.SnapshotOverdue)
		},
		Turned: turns.pruner,
		Logger: logger,
	})
	if cfg.Verify.Every > 0 {
		w.verify = newVerifyLoop(pool, w.peers, cfg, logger, counts)
		w.verify.Turned = turns.verify
	}
	if w.pages, err = newPages(w, counts, turns.registry); err != nil {
		return nil, err
	}
	return w, nil
}

// newVerifyLoop makes what compares the peers with the store in the background.
func newVerifyLoop(pool *pgxpool.Pool, peers map[string]*peer.Client, cfg config.Config, logger *slog.Logger, counts *metrics.Metrics) *verify.Loop {
	readers := make(map[string]verify.Reader, len(peers))
	for id, client := range peers {
		readers[id] = client
	}
	return &verify.Loop{
		Pool:    pool,
		Peers:   readers,
		Every:   cfg.Verify.Every,
		Options: verify.Options{AsAgent: cfg.SenderID, Rate: float64(cfg.Verify.Rate), Repair: verify.Switch(cfg.Verify.Repair)},
		Logger:  logger,
		Counter: counts,
	}
}

// pushURLs are where the peers are pushed, by id.
func pushURLs(cfg config.Config) map[string]string {
	urls := make(map[string]string, len(cfg.Peers))
	for _, p := range cfg.Peers {
		urls[p.ID] = p.BaseURL() + peer.PushPath
	}
	return urls
}

// catchupRates are how fast the peers may be pushed what they missed, by id.
func catchupRates(cfg config.Config) map[string]int {
	rates := make(map[string]int, len(cfg.Peers))
	for _, p := range cfg.Peers {
		rates[p.ID] = p.CatchupRate
	}
	return rates
}

// observing counts the attempts of the peers' clients.
func observing(counts *metrics.Metrics) func(peer.Attempt) {
	return func(a peer.Attempt) {
		retry, reuse := metrics.FirstAttempt, metrics.NoConnection
		switch {
		case a.Reused:
			reuse = metrics.ReusedConnection
		case a.Connected:
			reuse = metrics.NewConnection
		}
		if a.Retry {
			retry = metrics.SecondAttempt
			counts.RetryDone(retryOutcome(a.Class))
		}
		if a.Class == peer.ClassIDDrift {
			counts.IDDrift()
		}
		counts.Attempt(a.Peer, string(a.Class), retry, a.Elapsed, reuse)
	}
}

// retryOutcome is how a retry ended, in the words of the reference's counter.
func retryOutcome(class peer.Class) string {
	switch class.Outcome() {
	case peer.Ack:
		return "ok"
	case peer.IDDrift:
		return "id_drift"
	case peer.Fail, peer.Unknown:
	}
	return "fail"
}

// run works until ctx ends and everything it started has ended.
func (w *worker) run(ctx context.Context) error {
	defer w.flushTraces(ctx)()
	defer func() {
		for _, p := range w.peers {
			p.CloseIdle()
		}
	}()
	if err := jobs.RegisterPeers(ctx, w.pool, w.cfg.PeerIDs()); err != nil {
		return err
	}
	// River stops by its own rules when ctx ends, so that running jobs may finish.
	if err := w.client.Start(ctx); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	defer w.startHeartbeat(ctx)()
	policy, _ := w.cfg.Policy() // checked by newWorker
	w.logger.InfoContext(ctx, "worker started",
		slog.String("sender_id", w.cfg.SenderID), slog.Int("peers", len(w.cfg.Peers)), slog.String("quorum", policy.String()))

	defer w.announceStop(ctx)()
	var loops errgroup.Group
	loops.Go(func() error { return w.relay.Run(ctx) })
	loops.Go(func() error { return w.sweeper.Run(ctx) })
	loops.Go(func() error { return w.pruner.Run(ctx) })
	if w.verify != nil {
		loops.Go(func() error { return w.verify.Run(ctx) })
	}
	if w.pages != nil {
		loops.Go(func() error { w.servePages(ctx); return nil })
	}
	err := loops.Wait()
	<-w.client.Stopped()
	w.logger.InfoContext(context.WithoutCancel(ctx), "worker stopped", slog.Any("cause", context.Cause(ctx)))
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// servePages serves the operator's pages. A worker that cannot, because another one on this machine has the port, replicates all the same.
func (w *worker) servePages(ctx context.Context) {
	if err := w.pages.Run(ctx); err != nil {
		w.logger.WarnContext(ctx, "pages not served: choose another address with admin.listen, or none to turn them off",
			slog.String("listen", w.cfg.Admin.Listen), slog.String("error", err.Error()))
	}
}
