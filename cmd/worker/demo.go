package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"quorumbox/internal/config"
	"quorumbox/internal/demo"
)

// defaultPace is long enough to watch a peer fall behind.
const defaultPace = 10 * time.Second

// demoFlags are the flags of the command demo.
type demoFlags struct {
	file string
	pace time.Duration
	once bool
	json bool
}

func newDemoCommand() *cobra.Command {
	var flags demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all: a quorum, a killed peer, its recovery, and every field compared",
		Long: `Show it all, in half a minute and with nothing to set up: a writer, a worker and three
reference peers. The demo imports memories, kills a peer with SIGKILL when a third is
imported, updates, deletes and renames a memory meanwhile, starts the peer again, waits
until no peer misses anything, and compares all 26 fields of every memory at every peer
with the store.

It makes a database of its own on the server that DATABASE_URL (or database.url) names,
or brings a Postgres server if that is not set, and removes everything at the end. Of the
settings it takes the database only; the worker runs with the defaults but for a shorter
retry.max and jobs.soft_stop.

A first Ctrl-C cleans up; a second one ends the demo at once.`,
		Example: `  worker demo
  worker demo --once --file memories.jsonl
  worker demo --once --json --pace 0s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd, flags)
		},
	}
	set := cmd.Flags()
	set.StringVar(&flags.file, "file", "", "memories to import, a JSON object a line (default: a sample that comes with the program)")
	set.DurationVar(&flags.pace, "pace", defaultPace, "spread the import over this time; 0s: as fast as it goes")
	set.BoolVar(&flags.once, "once", false, "end after the comparison; exit code 0 only if all peers equal the store")
	set.BoolVar(&flags.json, "json", false, "write a summary as JSON to the standard output, events to the standard error; implies --once")
	return cmd
}

func runDemo(cmd *cobra.Command, flags demoFlags) error {
	ctx := cmd.Context()
	// The first signal ends ctx and with it the demo, which cleans up; the next one ends the program.
	defer context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()

	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	url, err := cfg.Database.ConnString()
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, which the peers run: %w", err)
	}
	demoConfig := demo.Config{
		DatabaseURL: url,
		File:        flags.file,
		Pace:        flags.pace,
		Executable:  executable,
		Worker:      runDemoWorker,
		Out:         cmd.OutOrStdout(),
	}
	if flags.json {
		flags.once, demoConfig.Out = true, cmd.ErrOrStderr()
	}
	if isTerminal(demoConfig.Out) && os.Getenv("TERM") != "dumb" {
		demoConfig.View = demo.Live
	}
	if !flags.once {
		demoConfig.Linger = func(ctx context.Context, pages string) error {
			return linger(ctx, cmd.InOrStdin(), cmd.OutOrStdout(), pages)
		}
	}
	summary, err := demo.Run(ctx, demoConfig)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if flags.json {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(summary); err != nil {
			return fmt.Errorf("demo: write the summary: %w", err)
		}
	}
	if !summary.Equal() {
		return errors.New("demo: the peers do not equal the store")
	}
	return nil
}

// runDemoWorker is what `worker run` does, on the demo's database and with its settings.
func runDemoWorker(ctx context.Context, url string, cfg config.Config, logger *slog.Logger) error {
	pool, err := openPool(ctx, url, cfg.Database.MaxConns, "quorumbox worker")
	if err != nil {
		return err
	}
	defer pool.Close()
	w, err := newWorker(pool, cfg, logger)
	if err != nil {
		return err
	}
	return w.run(ctx)
}

// linger keeps everything running until ctx ends or, at a terminal, somebody presses Enter.
func linger(ctx context.Context, stdin io.Reader, stdout io.Writer, pages string) error {
	where := ""
	if pages != "" {
		where = " River UI: " + pages
	}
	entered := make(chan struct{})
	how := "Ctrl-C"
	if isTerminal(stdin) {
		how = "Enter or Ctrl-C"
		// A read from a terminal cannot be called off: the goroutine ends with the program, which is next.
		go func() {
			_, _ = bufio.NewReader(stdin).ReadString('\n') // an error is an end, too
			close(entered)
		}()
	}
	if _, err := fmt.Fprintf(stdout, "\nStill running.%s\n%s ends the demo and removes all of it.\n", where, how); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-entered:
	}
	return nil
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}
