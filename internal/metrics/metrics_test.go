package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
)

// text returns the series of one metric as Prometheus reads them, without comments.
func text(t *testing.T, g prometheus.Gatherer, name string) []string {
	t.Helper()
	answer := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	promhttp.HandlerFor(g, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		t.Fatalf("got %d %s", answer.Code, answer.Body)
	}
	var lines []string
	for line := range strings.Lines(answer.Body.String()) {
		if strings.HasPrefix(line, name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// Wire protocol, section 9: names, types and labels that dashboards and tools of the reference know, all there from the start.
func TestNamesOfTheReference(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.RetryDone("ok")
	m.Dropped("peer_fail")
	m.PartialQuorum()
	m.IDDrift()
	m.IDDrift()
	m.QuorumAck("met")
	m.QuorumFailure("timeout")
	const want = `
# HELP ai_memory_federation_fanout_dropped_total Acknowledgements that did not arrive after the verdict was known. The peer gets the entries by a peer retry.
# TYPE ai_memory_federation_fanout_dropped_total counter
ai_memory_federation_fanout_dropped_total{reason="id_drift"} 0
ai_memory_federation_fanout_dropped_total{reason="join_error"} 0
ai_memory_federation_fanout_dropped_total{reason="panic"} 0
ai_memory_federation_fanout_dropped_total{reason="peer_fail"} 1
ai_memory_federation_fanout_dropped_total{reason="shutdown"} 0
# HELP ai_memory_federation_fanout_retry_total What became of the one retry inside a push, for every kind of entry.
# TYPE ai_memory_federation_fanout_retry_total counter
ai_memory_federation_fanout_retry_total{outcome="fail"} 0
ai_memory_federation_fanout_retry_total{outcome="id_drift"} 0
ai_memory_federation_fanout_retry_total{outcome="ok"} 1
# HELP ai_memory_federation_partial_quorum_total Batches whose quorum was met while some peer had not acknowledged.
# TYPE ai_memory_federation_partial_quorum_total counter
ai_memory_federation_partial_quorum_total 1
# HELP replication_id_drift_total Answers that acknowledged other ids than were sent. They are no acknowledgements.
# TYPE replication_id_drift_total counter
replication_id_drift_total 2
# HELP replication_quorum_ack_total Verdicts, one for each batch.
# TYPE replication_quorum_ack_total counter
replication_quorum_ack_total{result="met"} 1
replication_quorum_ack_total{result="not_met"} 0
# HELP replication_quorum_failures_total Verdicts not_met, by reason.
# TYPE replication_quorum_failures_total counter
replication_quorum_failures_total{reason="id_drift"} 0
replication_quorum_failures_total{reason="refused"} 0
replication_quorum_failures_total{reason="timeout"} 1
replication_quorum_failures_total{reason="unreachable"} 0
`
	err := testutil.GatherAndCompare(m.Registry(), strings.NewReader(want),
		"ai_memory_federation_fanout_dropped_total", "ai_memory_federation_fanout_retry_total", "ai_memory_federation_partial_quorum_total",
		"replication_id_drift_total", "replication_quorum_ack_total", "replication_quorum_failures_total")
	if err != nil {
		t.Error(err)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		do     func(m *metrics.Metrics)
		metric string
		want   []string // of the series that are not 0
	}{
		{
			"attempt",
			func(m *metrics.Metrics) {
				m.Attempt("a", "ok", metrics.FirstAttempt, time.Millisecond, metrics.NewConnection)
				m.Attempt("b", "timeout", metrics.FirstAttempt, time.Second, metrics.ReusedConnection)
				m.Attempt("b", "ok", metrics.SecondAttempt, time.Second, metrics.ReusedConnection)
			},
			"quorumbox_push_attempts_total",
			[]string{
				`quorumbox_push_attempts_total{class="ok",peer="a"} 1`,
				`quorumbox_push_attempts_total{class="ok",peer="b"} 1`,
				`quorumbox_push_attempts_total{class="timeout",peer="b"} 1`,
			},
		},
		{
			"retry",
			func(m *metrics.Metrics) {
				m.Attempt("a", "ok", metrics.FirstAttempt, 0, metrics.NewConnection)
				m.Attempt("b", "ok", metrics.SecondAttempt, 0, metrics.NewConnection)
			},
			"quorumbox_push_retries_total",
			[]string{`quorumbox_push_retries_total{peer="b"} 1`},
		},
		{
			"connections",
			func(m *metrics.Metrics) {
				m.Attempt("a", "ok", metrics.FirstAttempt, 0, metrics.NewConnection)
				m.Attempt("a", "ok", metrics.FirstAttempt, 0, metrics.ReusedConnection)
				m.Attempt("a", "ok", metrics.FirstAttempt, 0, metrics.ReusedConnection)
				m.Attempt("b", "refused_connection", metrics.FirstAttempt, 0, metrics.NoConnection)
				m.Attempt("b", "refused_connection", metrics.FirstAttempt, 0, metrics.Reuse(9))
			},
			"quorumbox_push_connections_total",
			[]string{
				`quorumbox_push_connections_total{peer="a",reused="false"} 1`,
				`quorumbox_push_connections_total{peer="a",reused="true"} 2`,
			},
		},
		{
			"caught up",
			func(m *metrics.Metrics) { m.CaughtUp("a", 7); m.CaughtUp("a", 3); m.CaughtUp("b", -1) },
			"quorumbox_catchup_entries_total",
			[]string{`quorumbox_catchup_entries_total{peer="a"} 10`},
		},
		{
			"repairs",
			func(m *metrics.Metrics) { m.Repairs("a", 2); m.Repairs("a", 3); m.Repairs("b", -1) },
			"quorumbox_repairs_total",
			[]string{`quorumbox_repairs_total{peer="a"} 5`},
		},
		{
			"refusal",
			func(m *metrics.Metrics) { m.Refusal("a", "skipped"); m.Refusal("a", "conflict") },
			"quorumbox_refusals_total",
			[]string{`quorumbox_refusals_total{class="conflict",peer="a"} 1`, `quorumbox_refusals_total{class="skipped",peer="a"} 1`},
		},
		{
			"takeover",
			func(m *metrics.Metrics) { m.Takeover("fan_out"); m.Takeover("peer_retry"); m.Takeover("peer_retry") },
			"quorumbox_takeovers_total",
			[]string{`quorumbox_takeovers_total{kind="fan_out"} 1`, `quorumbox_takeovers_total{kind="peer_retry"} 2`},
		},
		{
			"decided",
			func(m *metrics.Metrics) { m.Decided(3, time.Second); m.Decided(1, -time.Second); m.Decided(-5, 0) },
			"quorumbox_entries_decided_total",
			[]string{`quorumbox_entries_decided_total 4`},
		},
		{
			"unknown verdict",
			func(m *metrics.Metrics) { m.EntryDecided("x", 0, 0) },
			`quorumbox_write_to_verdict_seconds_count`,
			[]string{`quorumbox_write_to_verdict_seconds_count{verdict="other"} 1`},
		},
		{
			"build",
			func(m *metrics.Metrics) {
				m.SetBuild(metrics.Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26.0"})
			},
			"quorumbox_build_info",
			[]string{`quorumbox_build_info{go_version="go1.26.0",revision="abc",version="v1.2.3"} 1`},
		},
		{
			"limits",
			func(m *metrics.Metrics) { m.SetLimits(metrics.Limits{BacklogEntries: 7, BacklogAge: time.Hour}) },
			"quorumbox_backlog_limit",
			[]string{`quorumbox_backlog_limit_entries 7`, `quorumbox_backlog_limit_seconds 3600`},
		},
		{
			"unknown peer and class",
			func(m *metrics.Metrics) {
				m.Attempt("http://user:secret@host/", "dial tcp: no route", metrics.FirstAttempt, 0, metrics.NoConnection)
			},
			"quorumbox_push_attempts_total",
			[]string{`quorumbox_push_attempts_total{class="other",peer="other"} 1`},
		},
		{
			"unknown reason",
			func(m *metrics.Metrics) { m.Dropped("x") },
			"ai_memory_federation_fanout_dropped_total",
			[]string{`ai_memory_federation_fanout_dropped_total{reason="other"} 1`},
		},
		{
			"unknown outcome",
			func(m *metrics.Metrics) { m.RetryDone("x") },
			"ai_memory_federation_fanout_retry_total",
			[]string{`ai_memory_federation_fanout_retry_total{outcome="other"} 1`},
		},
		{
			"unknown result",
			func(m *metrics.Metrics) { m.QuorumAck("x") },
			"replication_quorum_ack_total",
			[]string{`replication_quorum_ack_total{result="other"} 1`},
		},
		{
			"unknown failure",
			func(m *metrics.Metrics) { m.QuorumFailure("x") },
			"replication_quorum_failures_total",
			[]string{`replication_quorum_failures_total{reason="other"} 1`},
		},
		{
			"unknown kind",
			func(m *metrics.Metrics) { m.Takeover("x") },
			"quorumbox_takeovers_total",
			[]string{`quorumbox_takeovers_total{kind="other"} 1`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := metrics.New()
			m.SetPeers([]string{"a", "b"})
			tt.do(m)
			var got []string
			for _, line := range text(t, m.Registry(), tt.metric) {
				if !strings.HasSuffix(line, " 0") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHistograms(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.SetPeers([]string{"a"})
	m.Attempt("a", "ok", metrics.FirstAttempt, 3*time.Millisecond, metrics.NewConnection)
	m.Attempt("a", "ok", metrics.FirstAttempt, -time.Hour, metrics.NewConnection)
	m.Decided(20, 30*time.Millisecond)
	m.EntryDecided("met", 20*time.Millisecond, 30*time.Millisecond)
	m.EntryDecided("met", -time.Hour, 30*time.Millisecond)
	m.EntryDecided("not_met", time.Hour, -time.Hour)
	for name, want := range map[string][]string{
		"quorumbox_push_duration_seconds": {
			`quorumbox_push_duration_seconds_bucket{peer="a",le="0.001"} 1`, `quorumbox_push_duration_seconds_bucket{peer="a",le="0.005"} 2`,
			`quorumbox_push_duration_seconds_sum{peer="a"} 0.003`, `quorumbox_push_duration_seconds_count{peer="a"} 2`,
		},
		"quorumbox_batch_entries": {
			`quorumbox_batch_entries_bucket{le="10"} 0`, `quorumbox_batch_entries_bucket{le="20"} 1`, `quorumbox_batch_entries_sum 20`,
		},
		"quorumbox_dispatch_to_verdict_seconds": {
			`quorumbox_dispatch_to_verdict_seconds_bucket{le="0.025"} 0`, `quorumbox_dispatch_to_verdict_seconds_bucket{le="0.05"} 1`,
			`quorumbox_dispatch_to_verdict_seconds_sum 0.03`,
		},
		"quorumbox_write_to_dispatch_seconds": {
			`quorumbox_write_to_dispatch_seconds_bucket{le="0.001"} 1`, `quorumbox_write_to_dispatch_seconds_bucket{le="0.025"} 2`,
			`quorumbox_write_to_dispatch_seconds_bucket{le="1800"} 2`, `quorumbox_write_to_dispatch_seconds_sum 3600.02`,
			`quorumbox_write_to_dispatch_seconds_count 3`,
		},
		"quorumbox_write_to_verdict_seconds": {
			`quorumbox_write_to_verdict_seconds_bucket{verdict="met",le="0.025"} 0`, `quorumbox_write_to_verdict_seconds_bucket{verdict="met",le="0.05"} 2`,
			`quorumbox_write_to_verdict_seconds_sum{verdict="not_met"} 3600`, `quorumbox_write_to_verdict_seconds_count{verdict="not_met"} 1`,
		},
	} {
		got := strings.Join(text(t, m.Registry(), name), "\n") + "\n"
		for _, line := range want {
			if !strings.Contains(got, line+"\n") {
				t.Errorf("%s: got\n%swant the line %s", name, got, line)
			}
		}
	}
}

// A rate needs a first sample: what may come is 0 before it comes.
func TestSetPeersStartsSeries(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	before := len(text(t, m.Registry(), "quorumbox_push_attempts_total"))
	m.SetPeers([]string{"a", "b"})
	refusing := 0
	for _, c := range peer.Classes() {
		if c.Refusal() {
			refusing++
		}
	}
	for name, want := range map[string]int{
		"quorumbox_push_attempts_total":    2 * len(peer.Classes()),
		"quorumbox_push_retries_total":     2,
		"quorumbox_push_connections_total": 2 * 2,
		"quorumbox_catchup_entries_total":  2,
		"quorumbox_repairs_total":          2,
		"quorumbox_refusals_total":         2 * refusing,

		"quorumbox_push_last_success_timestamp_seconds": 2,
	} {
		lines := text(t, m.Registry(), name)
		if len(lines) != want {
			t.Errorf("%s: got %d series, want %d", name, len(lines), want)
		}
		for _, line := range lines {
			if !strings.HasSuffix(line, " 0") {
				t.Errorf("got %s, want it to start at 0", line)
			}
		}
	}
	if before != 0 {
		t.Errorf("got %d series of pushes without peers, want none", before)
	}
}

func TestPeersAreOtherBeforeSetPeers(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.CaughtUp("a", 1)
	want := []string{`quorumbox_catchup_entries_total{peer="other"} 1`}
	if diff := cmp.Diff(want, text(t, m.Registry(), "quorumbox_catchup_entries_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Only an acknowledgement is a success.
func TestLastSuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New()
		m.SetPeers([]string{"a", "b"})
		m.Attempt("a", "ok", metrics.FirstAttempt, 0, metrics.NewConnection)
		now := time.Now().Unix()
		time.Sleep(time.Hour)
		for _, c := range peer.Classes() {
			if c != peer.ClassOK {
				m.Attempt("a", string(c), metrics.FirstAttempt, 0, metrics.NewConnection)
			}
		}
		want := fmt.Sprintf(`
# HELP quorumbox_push_last_success_timestamp_seconds When this worker last had an acknowledgement of the peer, in Unix time by the worker's clock; 0 if it had none.
# TYPE quorumbox_push_last_success_timestamp_seconds gauge
quorumbox_push_last_success_timestamp_seconds{peer="a"} %d
quorumbox_push_last_success_timestamp_seconds{peer="b"} 0
`, now)
		if err := testutil.GatherAndCompare(m.Registry(), strings.NewReader(want), "quorumbox_push_last_success_timestamp_seconds"); err != nil {
			t.Error(err)
		}
	})
}
