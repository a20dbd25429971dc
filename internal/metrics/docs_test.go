package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"quorumbox/internal/metrics"
	"quorumbox/internal/metrics/backlog"
	"quorumbox/internal/metrics/dbpool"
	"quorumbox/internal/peer"
	"quorumbox/internal/status"
)

const docsPath = "../../docs/metrics.md"

func gather(t *testing.T, g prometheus.Gatherer) []*dto.MetricFamily {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// full returns the registry as the worker has it (newMetrics of the command), with the one peer a, and a database that answers.
func full(t *testing.T) *prometheus.Registry {
	t.Helper()
	m := metrics.New()
	m.SetPeers([]string{"a"})
	read := func(ctx context.Context) (status.Backlog, error) {
		if err := ctx.Err(); err != nil {
			return status.Backlog{}, errors.New("the reading starts with an ended context")
		}
		b := status.Backlog{Peers: []status.Peer{{ID: "a", State: "active"}}}
		for _, name := range status.Tables() {
			b.Tables = append(b.Tables, status.Table{Name: name})
		}
		return b, nil
	}
	m.SetBuild(metrics.Build{Version: "v1.2.3", Revision: "0123456789ab", GoVersion: "go1.26.0"})
	// A pool that is never asked for a connection opens none.
	pool, err := pgxpool.New(t.Context(), "postgres://127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	m.Registry().MustRegister(backlog.New(read, testLogger(t)), dbpool.New(pool))
	return m.Registry()
}

// ours reports whether a metric is not one of the runtime's.
func ours(name string) bool {
	return !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_")
}

// TestDocs keeps the table of docs/metrics.md equal to the registry. UPDATE_DOCS=1 writes it.
func TestDocs(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- metrics: made by UPDATE_DOCS=1 go test ./internal/metrics -->\n", "<!-- end of metrics -->\n"
	raw, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost its markers:\n%s%s", docsPath, begin, end)
	}
	want := metricsTable(t)
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(docsPath, []byte(before+begin+want+end+after), 0o644); err != nil { //nolint:gosec // G306: documentation is public
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, table); d != "" {
		t.Errorf("%s is out of date: run UPDATE_DOCS=1 go test ./internal/metrics (-want +got):\n%s", docsPath, d)
	}
}

func metricsTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range gather(t, full(t)) {
		if ours(f.GetName()) {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), labels(f), f.GetHelp())
		}
	}
	return b.String() + "\n"
}

// labels lists a family's labels, and the values of those whose list is short.
func labels(f *dto.MetricFamily) string {
	values := map[string]map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if values[l.GetName()] == nil {
				values[l.GetName()] = map[string]bool{}
			}
			values[l.GetName()][l.GetValue()] = true
		}
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if slices.Contains([]string{"peer", "class", "version", "revision", "go_version"}, name) {
			parts = append(parts, name)
			continue
		}
		parts = append(parts, name+": "+strings.Join(slices.Sorted(maps.Keys(values[name])), ", "))
	}
	return strings.Join(parts, "; ")
}

// The page lists the classes.
func TestDocsNamesTheClasses(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range peer.Classes() {
		if !strings.Contains(string(raw), "`"+string(c)+"`") {
			t.Errorf("%s does not name the class %s", docsPath, c)
		}
	}
}

// No exception is needed, for the reference's names neither.
func TestLint(t *testing.T) {
	t.Parallel()
	registry := full(t)
	var names []string
	for _, f := range gather(t, registry) {
		if ours(f.GetName()) {
			names = append(names, f.GetName())
		}
	}
	problems, err := testutil.GatherAndLint(registry, names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if len(names) < 20 {
		t.Errorf("got %d metrics, want all", len(names))
	}
}

func TestRuntimeAndProcess(t *testing.T) {
	t.Parallel()
	n, err := testutil.GatherAndCount(metrics.New().Registry(), "go_goroutines", "go_memstats_heap_alloc_bytes", "process_start_time_seconds")
	if err != nil || n != 3 {
		t.Errorf("got %d of 3 metrics of the runtime and the process, %v", n, err)
	}
}
