package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"quorumbox/internal/status"
	"quorumbox/migrations"
)

// statusFlags are the flags of the command status.
type statusFlags struct {
	json     bool
	watch    bool
	interval time.Duration
	check    bool
	maxAge   time.Duration
}

func newStatusCommand() *cobra.Command {
	var flags statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show which peers lag, since when and why, and what waits",
		Long: `Show where each peer stands, what has not been dispatched or decided, and the verdicts
of the last minutes. The last line says in plain words what is going on.

LANES and ENTRIES are what a peer misses of what was dispatched, OLDEST is how long ago
the oldest of it was written, FAILURES counts failed pushes in a row.

The command exits with 0 if the status could be read. With --check it exits with 1 if a
peer misses an entry that is older than --max-age.`,
		Example: `  worker status
  worker status --watch
  worker status --check --max-age 5m
  worker status --json | jq '.peers[] | select(.in_step | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd, flags) },
	}
	set := cmd.Flags()
	set.BoolVar(&flags.json, "json", false, "print JSON, with --watch one object a line")
	set.BoolVar(&flags.watch, "watch", false, "show it again and again, until stopped")
	set.DurationVar(&flags.interval, "interval", 2*time.Second, "pause between two looks of --watch, 100ms or more")
	set.BoolVar(&flags.check, "check", false, "exit with 1 if a peer lags longer than --max-age")
	set.DurationVar(&flags.maxAge, "max-age", time.Minute, "for --check: how old an entry may be that a peer misses")
	return cmd
}

func runStatus(cmd *cobra.Command, flags statusFlags) error {
	ctx := cmd.Context()
	switch {
	case flags.watch && flags.check:
		return &usageError{errors.New("--watch never ends, so --check has no use beside it"), cmd.CommandPath()}
	case flags.interval < 100*time.Millisecond:
		return &usageError{errors.New("--interval must be 100ms or more"), cmd.CommandPath()}
	}
	_, url, err := loadWithDatabase(cmd)
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, url, 2, "quorumbox status")
	if err != nil {
		return err
	}
	defer pool.Close()
	report, err := status.Read(ctx, pool)
	if err != nil {
		return err
	}
	pending := migrations.Check(ctx, url)
	if pending != nil && !errors.Is(pending, migrations.ErrPending) {
		return pending
	}
	show := statusView{json: flags.json, out: cmd.OutOrStdout(), pending: pending}
	if flags.watch {
		return show.watch(ctx, pool, report, flags.interval)
	}
	if err := show.write(report); err != nil {
		return err
	}
	if late := report.Late(flags.maxAge); flags.check && len(late) > 0 {
		return fmt.Errorf("lagging for longer than %s: %s", flags.maxAge, strings.Join(late, ", "))
	}
	return nil
}

// statusView writes reports the way the flags ask for.
type statusView struct {
	json    bool
	out     io.Writer
	pending error // pending migrations, or nil
}

func (v statusView) write(r status.Report) error {
	if v.pending != nil {
		r.Migrations = v.pending.Error()
		r.Summary = r.Sentence()
	}
	if v.json {
		return json.NewEncoder(v.out).Encode(r)
	}
	return r.WriteText(v.out)
}

// watch shows first, and then what it reads, until ctx ends. A database that goes away is waited for.
func (v statusView) watch(ctx context.Context, db status.DB, first status.Report, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	f, ok := v.out.(*os.File)
	redraw := ok && isatty.IsTerminal(f.Fd()) && !v.json
	report, readErr := first, error(nil)
	for {
		var text strings.Builder
		page := v
		page.out = &text
		if redraw {
			text.WriteString("\x1b[H\x1b[2J") // home, clear
		}
		switch {
		case readErr != nil && v.json:
			if err := json.NewEncoder(&text).Encode(map[string]string{"error": readErr.Error()}); err != nil {
				return err
			}
		case readErr != nil:
			fmt.Fprintf(&text, "%v; trying again\n", readErr)
		default:
			if err := page.write(report); err != nil {
				return err
			}
		}
		if !redraw && !v.json {
			text.WriteByte('\n')
		}
		if _, err := io.WriteString(v.out, text.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // stopped by the user
		case <-ticker.C:
		}
		if report, readErr = status.Read(ctx, db); ctx.Err() != nil {
			return nil
		}
	}
}
