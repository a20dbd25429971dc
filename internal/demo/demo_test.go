package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/config"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/secret"
)

func TestConfigRefusals(t *testing.T) {
	t.Parallel()
	good := Config{
		Executable: "x", Out: io.Discard,
		Worker: func(context.Context, string, config.Config, *slog.Logger) error { return nil },
	}
	if err := good.validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"no program":       {func(c *Config) { c.Executable = "" }, "must be set"},
		"no worker":        {func(c *Config) { c.Worker = nil }, "must be set"},
		"no writer":        {func(c *Config) { c.Out = nil }, "must be set"},
		"a negative pace":  {func(c *Config) { c.Pace = -time.Second }, "the pace is -1s: want 0"},
		"a pace of a day":  {func(c *Config) { c.Pace = 24 * time.Hour }, "want 0 (as fast as it goes) to 1h"},
		"a file not there": {func(c *Config) { c.File = "/does/not/exist" }, "open the memories"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := good
			test.change(&c)
			_, err := Run(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// A demo whose worker fails says so, with what the worker logged, and leaves neither files nor databases nor processes behind.
func TestRunWithoutWorker(t *testing.T) {
	url := pgtest.EmptyURL(t)
	t.Setenv("TMPDIR", t.TempDir())
	errBroken := errors.New("broken")
	var out bytes.Buffer
	summary, err := Run(t.Context(), Config{
		DatabaseURL: secret.New(url),
		Executable:  os.Args[0],
		Out:         &out,
		Worker: func(ctx context.Context, _ string, cfg config.Config, logger *slog.Logger) error {
			if err := cfg.Validate(); err != nil {
				return err
			}
			logger.WarnContext(ctx, "something to read")
			return errBroken
		},
	})
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "something to read") {
		t.Errorf("got %v, want %v with the worker's log", err, errBroken)
	}
	if summary.Equal() {
		t.Error("the summary says equal")
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	if len(scratchNames(out.String())) != 1 {
		t.Errorf("the events name no database:\n%s", &out)
	}
	var databases int
	row := connect(t, url).QueryRow(t.Context(), `select count(*) from pg_database where datname = any ($1)`, scratchNames(out.String()))
	if err := row.Scan(&databases); err != nil || databases != 0 {
		t.Errorf("got %d databases (%v), want none of %v", databases, err, scratchNames(out.String()))
	}
}

// scratchNames are the databases that the events speak of.
func scratchNames(events string) []string {
	var names []string
	for word := range strings.FieldsSeq(events) {
		if strings.HasPrefix(word, databasePrefix) {
			names = append(names, word)
		}
	}
	return names
}
