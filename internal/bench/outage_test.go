//go:build unix

package bench

import (
	"strings"
	"testing"
	"time"
)

// TestRunOutage is the whole command, with a small outage of each kind.
func TestRunOutage(t *testing.T) { //nolint:paralleltest // it measures
	needsServer(t)
	common := small(t)
	for _, how := range []Silence{Killed, Hangs} { //nolint:paralleltest // likewise
		t.Run(string(how), func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			cfg := OutageConfig{Config: common, Entries: 200, Share: 0.3, How: how}
			cfg.Peers, cfg.Progress = 3, func(line string) { t.Log(line) }
			report, err := RunOutage(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if report.During.Writes != 200 || report.During.NotMet != 0 || report.Missed == 0 || report.Probes == 0 || report.During.Lagging == 0 {
				t.Errorf("got %+v, want 200 writes that two peers acknowledged and the third missed", report)
			}
			if report.MaxConcurrent == 0 || report.DrainRate <= 0 || report.Before.Verdict.P50 <= 0 || report.After.Writes == 0 {
				t.Errorf("got %+v", report)
			}
			var text strings.Builder
			if err := report.Text(&text, "worker bench outage"); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"catching up", "probes while it was away", "times the live rate", "Repeat with: worker bench outage"} {
				if !strings.Contains(text.String(), want) {
					t.Errorf("the report does not say %q:\n%s", want, text.String())
				}
			}
			nothingLeft(t)
		})
	}
}

func TestOutageConfigValidate(t *testing.T) {
	t.Parallel()
	good := OutageConfig{
		Config:  Config{Program: "worker", Writers: 1, Duration: time.Second, Rounds: 1, Peers: 2, ContentBytes: 1, Signing: Unsigned, LatencyRuns: 1},
		Entries: 100, Share: 0.5, How: Killed,
	}
	if err := good.Validate(); err != nil {
		t.Fatalf("got %v for a good configuration", err)
	}
	for name, test := range map[string]struct {
		change func(*OutageConfig)
		says   string
	}{
		"few entries":   {func(c *OutageConfig) { c.Entries = 99 }, "entries is 99"},
		"many entries":  {func(c *OutageConfig) { c.Entries = 10_000_001 }, "entries is 10000001"},
		"no load":       {func(c *OutageConfig) { c.Share = 0 }, "share is 0"},
		"too much load": {func(c *OutageConfig) { c.Share = 0.91 }, "share is 0.91"},
		"negative rate": {func(c *OutageConfig) { c.Rate = -1 }, "rate is -1"},
		"unknown way":   {func(c *OutageConfig) { c.How = "asleep" }, `how is "asleep"`},
		"one peer":      {func(c *OutageConfig) { c.Peers = 1 }, "2 peers or more"},
		"the rest":      {func(c *OutageConfig) { c.Writers = 0 }, "writers is 0"},
	} {
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
