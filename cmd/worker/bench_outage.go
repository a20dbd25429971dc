package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/internal/bench"
)

func newBenchOutageCommand() *cobra.Command {
	cfg := bench.OutageConfig{Config: bench.Config{Signing: bench.Signed}, How: bench.Killed}
	var (
		seconds float64
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "outage",
		Short: "Measure what a peer's outage costs the others, and how it catches up",
		Long: `Write at a fixed share of this machine's full rate while one peer goes away for so many
entries and comes back. Shows side by side how long entries took to their verdict and what rows
the peer cost before, during and after; how often it was asked while it was away; and how fast it
caught up, beside the live load.

Exits with 1 if any peer does not hold exactly what was committed.`,
		Example: `  worker bench outage
  worker bench outage --entries 10000 --how hangs --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			cfg.Duration = time.Duration(seconds * float64(time.Second))
			cfg.Progress = func(line string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), line) }
			report, err := bench.RunOutage(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(report)
			}
			return report.Text(cmd.OutOrStdout(), outageCommandLine(cmd))
		},
	}
	set := cmd.Flags()
	set.IntVar(&cfg.Entries, "entries", 100_000, "entries that are written while the peer is away")
	set.Float64Var(&cfg.Share, "share", 0.5, "share of the full rate at which is written")
	set.Float64Var(&cfg.Rate, "rate", 0, "writes a second, in place of --share; 0: by --share")
	set.StringVar((*string)(&cfg.How), "how", string(cfg.How), "killed: the peer refuses connections; hangs: it takes requests and answers none")
	set.BoolVar(&cfg.Alone, "alone", false, "write nothing while the peer catches up")
	set.IntVar(&cfg.Writers, "writers", 32, "writers at a time")
	set.Float64Var(&seconds, "seconds", 10, "how long the calm before and after is measured")
	set.IntVar(&cfg.Peers, "peers", 3, "peers; the quorum is a majority of them and the local commit")
	set.StringVar(&cfg.File, "file", "", "JSONL file with memories to write, again and again with fresh ids and titles; empty: generated ones")
	set.IntVar(&cfg.ContentBytes, "content-bytes", 120, "size of a generated memory's content")
	set.StringVar((*string)(&cfg.Signing), "signing", string(cfg.Signing), "ed25519: pushes are signed with a key made for the run; off: not")
	set.StringVar(&cfg.DatabaseURL, "database", "", "URL of a server to make databases on; empty: a durable server made for the run")
	set.BoolVar(&asJSON, "json", false, "report as JSON")
	return cmd
}

// outageCommandLine is what repeats the measurement, without the database's address, which may hold a password.
func outageCommandLine(cmd *cobra.Command) string {
	parts := []string{cmd.CommandPath()}
	for _, name := range []string{"entries", "share", "rate", "how", "alone", "writers", "seconds", "peers", "file", "content-bytes", "signing"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			parts = append(parts, "--"+name+"="+flag.Value.String())
		}
	}
	if cmd.Flags().Changed("database") {
		parts = append(parts, "--database=…")
	}
	return strings.Join(parts, " ")
}
