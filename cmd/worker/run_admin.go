package main

import (
	"log/slog"
	"time"

	"quorumbox/internal/admin"
	"quorumbox/internal/config"
	"quorumbox/internal/health"
	"quorumbox/internal/metrics"
	"quorumbox/internal/status"
	"quorumbox/jobs"
)

// The names of the worker's loops, as /livez shows them (docs/admin.md).
const (
	loopRelay   = "relay"
	loopSweeper = "sweeper"
	loopPruner  = "pruner"
	loopVerify  = "verify"
	loopRiver   = "river" // looks for jobs, of one queue each
)

// turns are what the loops of a worker call.
type turns struct {
	registry *health.Registry

	relay, sweeper, pruner health.Turned
	verify                 health.Turned // nil: the loop is off
	queues                 map[string]health.Turned
}

func newTurns(cfg config.Config) turns {
	r := health.New(0)
	t := turns{
		registry: r,
		relay:    r.Loop(loopRelay, ""), sweeper: r.Loop(loopSweeper, ""), pruner: r.Loop(loopPruner, ""),
		queues: map[string]health.Turned{jobs.FanOutQueue: r.Loop(loopRiver, jobs.FanOutQueue)},
	}
	for _, id := range cfg.PeerIDs() {
		queue := jobs.PeerQueue(id)
		t.queues[queue] = r.Loop(loopRiver, queue)
	}
	if cfg.Verify.Every > 0 {
		t.verify = r.Loop(loopVerify, "")
	}
	return t
}

// queue is what River calls.
func (t turns) queue(name string, within time.Duration) { t.queues[name].Turn(within) }

// takeover is above what it takes until a killed worker's batch is taken over (15 s in 99 of 100 cases), twice, so that a worker that is killed makes no other one
// unready.
const takeover = 30 * time.Second

// limits are how long work may wait before a worker is not ready: a takeover, and the longest wait for the peers in the push before and in the one after it.
func limits(cfg config.Config) (*status.Limits, error) {
	rules, err := cfg.QuorumRules()
	if err != nil {
		return nil, err
	}
	most := takeover + 2*max(cfg.Quorum.AckTimeout, rules.MaxAckTimeout())
	return &status.Limits{Dispatch: most, Decision: most}, nil
}

// newPages makes a worker's admin listener, nil if there is none.
func newPages(w *worker, counts *metrics.Metrics, registry *health.Registry) (*admin.Server, error) {
	if w.cfg.Admin.Listen == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	pages, err := newAdminConfig(w.cfg, w.logger)
	if err != nil {
		return nil, err
	}
	if pages.Progress, err = limits(w.cfg); err != nil {
		return nil, err
	}
	pages.Pool, pages.Client, pages.Health, pages.Registry, pages.LoginFailed = w.pool, w.client, registry, counts.Registry(), counts.LoginFailed
	pages.Page = newStatusPage(w.pool, w.client, w.logger)
	return admin.New(pages)
}

// newAdminConfig returns what the settings say of the admin listener.
func newAdminConfig(cfg config.Config, logger *slog.Logger) (admin.Config, error) {
	c := admin.Config{Logger: logger, Listen: cfg.Admin.Listen, Login: admin.Login{
		TokenFile: cfg.Admin.TokenFile, Username: cfg.Admin.Username, PasswordFile: cfg.Admin.PasswordFile, MetricsTokenFile: cfg.Admin.MetricsTokenFile,
	}}
	certificate, err := cfg.Admin.NewServerCertificate(func(warning error) {
		logger.Warn("the admin listener's certificate cannot be used", slog.String("error", warning.Error()))
	})
	if certificate != nil {
		c.Certificate = certificate.Get
	}
	return c, err
}
