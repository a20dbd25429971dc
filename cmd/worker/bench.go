package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/internal/bench"
	"quorumbox/internal/peer"
)

func newBenchCommand() *cobra.Command {
	cfg := bench.Config{Signing: bench.Signed}
	var (
		seconds float64
		only    []string
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the figures on this machine, beside bare writes and the plain pattern",
		Long: `Measure how fast memories reach every peer, in one run beside two others: the same
writers without an outbox (bare), and one River job per memory (plain). The scenarios
take turns in each round; medians are compared. Postgres, the worker and the peers are
processes of their own on this machine, made for the run and gone after it.

Exits with 1 if any peer does not hold exactly what was committed.`,
		Example: `  worker bench
  worker bench --seconds 3 --rounds 1 --only bare,ours
  worker bench --file memories.jsonl --json > figures.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			cfg.Duration = time.Duration(seconds * float64(time.Second))
			for _, s := range only {
				cfg.Only = append(cfg.Only, bench.Scenario(s))
			}
			cfg.Progress = func(line string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), line) }
			report, err := bench.Run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(report)
			}
			return report.Text(cmd.OutOrStdout(), commandLine(cmd))
		},
	}
	set := cmd.Flags()
	set.IntVar(&cfg.Writers, "writers", 32, "writers at a time")
	set.Float64Var(&seconds, "seconds", 10, "how long they write in each measurement")
	set.IntVar(&cfg.Rounds, "rounds", 3, "how often each scenario is measured")
	set.IntVar(&cfg.Peers, "peers", 3, "peers; the quorum is a majority of them and the local commit")
	set.StringVar(&cfg.File, "file", "", "JSONL file with memories to write, again and again with fresh ids and titles; empty: generated ones")
	set.IntVar(&cfg.ContentBytes, "content-bytes", 120, "size of a generated memory's content")
	set.StringVar((*string)(&cfg.Signing), "signing", string(cfg.Signing), "ed25519: pushes are signed with a key made for the run; off: not")
	set.StringSliceVar(&only, "only", nil, "scenarios to measure, of bare, ours, plain, latency; empty: all")
	set.IntVar(&cfg.LatencyRuns, "latency-writes", 500, "writes of the scenario latency, over all rounds")
	set.StringVar(&cfg.DatabaseURL, "database", "", "URL of a server to make databases on; empty: a durable server made for the run")
	set.IntVar(&cfg.Statements, "statements", 0, "how many of the server's costliest statements to list (slows it down; needs pg_stat_statements)")
	set.BoolVar(&asJSON, "json", false, "report as JSON")
	cmd.AddCommand(newBenchPlainWorkerCommand(), newBenchOutageCommand())
	return cmd
}

// commandLine is what repeats a measurement: the flags that were given, without the database's address, which may hold a password.
func commandLine(cmd *cobra.Command) string {
	parts := []string{cmd.CommandPath()}
	for _, name := range []string{"writers", "seconds", "rounds", "peers", "file", "content-bytes", "signing", "only", "latency-writes", "statements"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			parts = append(parts, "--"+name+"="+strings.Trim(flag.Value.String(), "[]"))
		}
	}
	if cmd.Flags().Changed("database") {
		parts = append(parts, "--database=…")
	}
	return strings.Join(parts, " ")
}

// newBenchPlainWorkerCommand is the worker of the plain pattern, which bench starts as a child.
func newBenchPlainWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "plain-worker",
		Short:  "Work the jobs of the scenario plain until told to stop",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			cfg, url, err := loadWithDatabase(cmd)
			if err != nil {
				return err
			}
			pool, err := openPool(ctx, url, cfg.Database.MaxConns, "quorumbox bench plain worker")
			if err != nil {
				return err
			}
			defer pool.Close()
			logger := newLogger(cfg.Log, cmd.ErrOrStderr())
			peers, err := newPeers(cfg, warnings(logger), nil)
			if err != nil {
				return err
			}
			push := func(ctx context.Context, id string, req peer.Request) error { return peers[id].Push(ctx, req) }
			return bench.RunPlainWorker(ctx, pool, cfg.SenderID, cfg.PeerIDs(), push, logger)
		},
	}
}
