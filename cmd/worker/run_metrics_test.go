package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/config"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// What docs/metrics.md lists, and alerts and dashboard are checked against, is what a worker shows before anything has happened.
func TestMetricsAreThoseOfTheDocs(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := jobs.RegisterPeers(t.Context(), pool, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(configFile(t, url, "sender_id: host:test\npeers:\n"+peerLine("a", "http://127.0.0.1:1", "")), nil)
	if err != nil {
		t.Fatal(err)
	}
	families, err := newMetrics(pool, cfg, newLogger(cfg.Log, t.Output())).Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	values := map[string]float64{}
	for _, f := range families {
		if name := f.GetName(); !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			got = append(got, name)
			values[name] = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (?:counter|gauge|histogram) \\|").FindAllStringSubmatch(string(page), -1) {
		want = append(want, match[1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-docs/metrics.md +worker):\n%s", diff)
	}
	for name, want := range map[string]float64{
		"quorumbox_build_info":                  1,
		"quorumbox_backlog_limit_entries":       float64(cfg.Retention.BacklogEntries),
		"quorumbox_backlog_limit_seconds":       cfg.Retention.BacklogAge.Seconds(),
		"quorumbox_db_pool_max_connections":     float64(pool.Config().MaxConns),
		"quorumbox_undispatched_oldest_seconds": 0,
		"quorumbox_peer_oldest_unacked_seconds": 0,
		"quorumbox_snapshot_running_seconds":    0,
	} {
		if values[name] != want {
			t.Errorf("%s: got %v, want %v", name, values[name], want)
		}
	}
}
