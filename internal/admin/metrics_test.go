package admin_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"quorumbox/internal/metrics"
	"quorumbox/internal/metrics/backlog"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
)

// withRegistry serves pages with a registry on a free port.
func withRegistry(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Registry = registry
	return start(t, cfg)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.SetPeers([]string{"peer-a"})
	m.QuorumAck("met")
	got := ask(t, http.MethodGet, withRegistry(t, m.Registry())+"/metrics", nil)
	if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("got %d %s, want 200 and the text format", got.status, got.header.Get("Content-Type"))
	}
	for _, want := range []string{
		"\n# TYPE replication_quorum_ack_total counter\n", "\nreplication_quorum_ack_total{result=\"met\"} 1\n",
		"\nquorumbox_push_attempts_total{class=\"ok\",peer=\"peer-a\"} 0\n", "\ngo_goroutines ", "\nprocess_start_time_seconds ",
	} {
		if !strings.Contains(got.body, want) {
			t.Errorf("got no %q in\n%.2000s", want, got.body)
		}
	}
}

// The two names quorumbox_refusals and quorumbox_refusals_total are one family in OpenMetrics, so that it is never served.
func TestMetricsAreNeverOpenMetrics(t *testing.T) {
	t.Parallel()
	got := ask(t, http.MethodGet, withRegistry(t, metrics.New().Registry())+"/metrics", func(r *http.Request) {
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
	})
	if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %d %s, want the text format", got.status, got.header.Get("Content-Type"))
	}
}

func TestMetricsWithoutDatabase(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	m.Registry().MustRegister(backlog.New(func(context.Context) (status.Backlog, error) {
		return status.Backlog{}, errors.New("connection refused, password secret-canary")
	}, cfg.Logger))
	cfg.Registry = m.Registry()
	got := ask(t, http.MethodGet, start(t, cfg)+"/metrics", nil)
	if got.status != http.StatusOK || !strings.Contains(got.body, "\nquorumbox_scrape_errors_total 1\n") {
		t.Errorf("got %d %.2000s, want 200 and one error", got.status, got.body)
	}
	if strings.Contains(got.body, "quorumbox_undispatched_entries") || !strings.Contains(got.body, "\nquorumbox_entries_decided_total 0\n") {
		t.Errorf("got %.2000s, want the counters and no gauge of the database", got.body)
	}
	if strings.Contains(got.body, "secret-canary") {
		t.Error("got the text of an error in the metrics")
	}
}

// A collector that breaks costs its own metrics only.
func TestMetricsWithABrokenCollector(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.Registry().MustRegister(broken{})
	got := ask(t, http.MethodGet, withRegistry(t, m.Registry())+"/metrics", nil)
	if got.status != http.StatusOK || !strings.Contains(got.body, "\nquorumbox_entries_decided_total 0\n") {
		t.Errorf("got %d %.2000s, want 200 and the other metrics", got.status, got.body)
	}
}

type broken struct{}

func (broken) Describe(chan<- *prometheus.Desc) {}

func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "Broken.", nil, nil), errors.New("out of order"))
}

func TestMetricsRefusals(t *testing.T) {
	t.Parallel()
	with, without := withRegistry(t, metrics.New().Registry()), withRegistry(t, nil)
	for _, tt := range []struct {
		name, method, base string
		change             func(*http.Request)
		want               int
	}{
		{"no registry", http.MethodGet, without, nil, http.StatusNotFound},
		{"POST", http.MethodPost, with, nil, http.StatusMethodNotAllowed},
		{"rebound name", http.MethodGet, with, func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
	} {
		if got := ask(t, tt.method, tt.base+"/metrics", tt.change); got.status != tt.want {
			t.Errorf("%s: got %d %.200s, want %d", tt.name, got.status, got.body, tt.want)
		}
	}
}
