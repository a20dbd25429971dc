package main

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/spf13/cobra"

	"quorumbox/internal/admin"
	"quorumbox/internal/metrics/backlog"
)

// uiConns is the size of the pool of the command ui: a page asks for a few things at once.
const uiConns = 4

func newUICommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Serve the job pages and the status of a fleet, without replicating",
		Long: `Serve what the admin listener of a worker serves, River UI, status, metrics of the database
and health, from a process that does not replicate: it registers no peers and takes no jobs.
The settings are those of a worker (admin.…), and so is the login. Somebody who has it can
pause queues and cancel, retry or delete jobs in River UI.`,
		Example: `  worker ui
  worker --config quorumbox.yaml ui --listen 127.0.0.1:9090`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveUI(cmd, listen) },
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address and port, in place of admin.listen: a worker on the same machine has that")
	return cmd
}

func serveUI(cmd *cobra.Command, listen string) error {
	ctx := cmd.Context()
	cfg, _, err := loadWithDatabase(cmd)
	if err != nil {
		return err
	}
	if listen != "" {
		cfg.Admin.Listen = listen
		if err := cfg.Validate(); err != nil {
			return err
		}
	}
	if cfg.Admin.Listen == "" {
		return errors.New("admin.listen is empty, so there is nothing to serve: set it or use --listen")
	}
	logger := newLogger(cfg.Log, cmd.ErrOrStderr())
	pages, err := newAdminConfig(cfg, logger)
	if err != nil {
		return err
	}
	database := cfg.Database
	database.MaxConns = uiConns
	if pages.Pool, err = openFollowingPool(ctx, database, "quorumbox ui", warnings(logger)); err != nil {
		return err
	}
	defer pages.Pool.Close()
	// Without queues and workers it inserts, pauses and cancels, when River UI is told to, and does nothing else.
	if pages.Client, err = river.NewClient(riverpgxv5.New(pages.Pool), &river.Config{Logger: logger}); err != nil {
		return fmt.Errorf("make a River client: %w", err)
	}
	pages.Page = newStatusPage(pages.Pool, pages.Client, logger)
	pages.Registry = prometheus.NewRegistry() // without what workers count, which would be 0 here
	pages.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		backlog.New(backlog.FromPool(pages.Pool), logger))
	server, err := admin.New(pages)
	if err != nil {
		return err
	}
	return server.Run(ctx)
}
