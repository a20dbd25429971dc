//go:build unix

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/localpg"
)

func small(t *testing.T) Config {
	t.Helper()
	return Config{
		Program: program(t), Writers: 4, Duration: time.Second, Rounds: 1, Peers: 2, ContentBytes: 120, Signing: Signed, LatencyRuns: 3,
		Progress: func(line string) { t.Log(line) },
	}
}

// needsServer skips where no Postgres can be had, so that it is seen.
func needsServer(t *testing.T) {
	t.Helper()
	server, err := localpg.Start(t.Context(), localpg.Options{Durability: localpg.NoSync})
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, NOT TESTED: %v\nInstall Postgres 14 or newer (Debian: apt-get install postgresql).", err)
	}
	if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestRun is the whole command: every scenario, real children, the peers compared with the writer.
func TestRun(t *testing.T) { //nolint:paralleltest // it measures
	needsServer(t)
	cfg := small(t)
	t.Setenv("TMPDIR", t.TempDir())
	report, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Samples), len(Scenarios()); got != want {
		t.Fatalf("got %d samples, want %d", got, want)
	}
	for _, s := range report.Samples {
		if s.Writes == 0 || s.Scenario != Latency && (s.Rate <= 0 || s.Rate > s.CommitRate) {
			t.Errorf("%s: got %d writes, rate %v, commit rate %v", s.Scenario, s.Writes, s.Rate, s.CommitRate)
		}
	}
	if report.OfBare <= 0 || report.OfPlain <= 0 || report.Latency == nil || report.Latency.Verdict.N != 3 || report.Latency.Verdict.P50 <= 0 {
		t.Errorf("got ratios %v and %v, latency %+v", report.OfBare, report.OfPlain, report.Latency)
	}
	var text strings.Builder
	if err := report.Text(&text, "worker bench"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ours/bare", "ours/plain", "commit to quorum", "CPU seconds", "Repeat with: worker bench"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text.String())
		}
	}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
	nothingLeft(t)
}

// TestRunEndsWithItsContext interrupts it in the middle: nothing may be left.
func TestRunEndsWithItsContext(t *testing.T) { //nolint:paralleltest // it counts what is left in the folder for temporary files
	needsServer(t)
	cfg := small(t)
	t.Setenv("TMPDIR", t.TempDir())
	cfg.Only = []Scenario{Bare, Ours}
	cfg.Rounds = 100
	interrupt := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cfg.Duration = 100 * time.Millisecond
	cfg.Progress = func(line string) {
		if strings.Contains(line, string(Ours)) { // the next scenario begins
			cancel(interrupt)
		}
	}
	if _, err := Run(ctx, cfg); err == nil {
		t.Error("got no error, want the interruption")
	}
	nothingLeft(t)
}

func nothingLeft(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "quorumbox-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("got %v, %v, want no folder left", left, err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	good := Config{Program: "worker", Writers: 1, Duration: time.Second, Rounds: 1, Peers: 1, ContentBytes: 1, Signing: Unsigned, LatencyRuns: 1}
	if err := good.Validate(); err != nil {
		t.Fatalf("got %v for a good configuration", err)
	}
	tests := map[string]struct {
		change func(*Config)
		says   string
	}{
		"no writers":           {func(c *Config) { c.Writers = 0 }, "writers is 0"},
		"too many writers":     {func(c *Config) { c.Writers = 151 }, "writers is 151"},
		"no rounds":            {func(c *Config) { c.Rounds = 0 }, "rounds is 0"},
		"no peers":             {func(c *Config) { c.Peers = 0 }, "peers is 0"},
		"no content":           {func(c *Config) { c.ContentBytes = 0 }, "content bytes is 0"},
		"too much content":     {func(c *Config) { c.ContentBytes = 65537 }, "content bytes is 65537"},
		"no latency writes":    {func(c *Config) { c.LatencyRuns = 0 }, "latency writes is 0"},
		"negative statements":  {func(c *Config) { c.Statements = -1 }, "statements is -1"},
		"too short":            {func(c *Config) { c.Duration = time.Millisecond }, "duration is 1ms"},
		"unknown signing":      {func(c *Config) { c.Signing = "rsa" }, `signing is "rsa"`},
		"unknown scenario":     {func(c *Config) { c.Only = []Scenario{"all"} }, `unknown scenario "all"`},
		"no program":           {func(c *Config) { c.Program = "" }, "no program"},
		"statements elsewhere": {func(c *Config) { c.Statements, c.DatabaseURL = 1, "postgres://h/d" }, "own server only"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := good
			test.change(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
		})
	}
}

func TestVerifyPeerRefuses(t *testing.T) {
	t.Parallel()
	want := map[string]bool{"a": true, "b": true}
	tests := map[string]struct {
		status int
		body   string
		says   string // empty: fine
	}{
		"equal":         {200, `{"id":"a"}` + "\n" + `{"id":"b"}` + "\n", ""},
		"one missing":   {200, `{"id":"a"}` + "\n", "1 of the 2 rows"},
		"one too many":  {200, `{"id":"a"}` + "\n" + `{"id":"c"}` + "\n", "never committed: c"},
		"not JSON":      {200, "{\n", "read its rows"},
		"not available": {500, "", "500"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			}))
			defer peer.Close()
			err := new(stack).verifyPeer(t.Context(), peer.Client(), peer.URL, want)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
		})
	}
}

func TestDatabaseName(t *testing.T) {
	t.Parallel()
	got, err := withDatabaseName("postgres://u@h:5432/postgres?sslmode=disable", "x")
	if want := "postgres://u@h:5432/x?sslmode=disable"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"host=h password=secret", "mysql://u:secret@h/d", "postgres://u:secret@h:x/d"} {
		if got, err := withDatabaseName(bad, "x"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %q, %v, want an error without the password", got, err)
		}
	}
}
