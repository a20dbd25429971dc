package metrics_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quorumbox/internal/metrics"
)

// everything calls each method with v as every label.
func everything(m *metrics.Metrics, v string) {
	for _, reuse := range []metrics.Reuse{metrics.NoConnection, metrics.NewConnection, metrics.ReusedConnection} {
		m.Attempt(v, v, metrics.SecondAttempt, time.Millisecond, reuse)
	}
	m.RetryDone(v)
	m.Dropped(v)
	m.PartialQuorum()
	m.IDDrift()
	m.QuorumAck(v)
	m.QuorumFailure(v)
	m.Decided(1, time.Millisecond)
	m.EntryDecided(v, time.Millisecond, time.Millisecond)
	m.Snapshot(v, v)
	m.Verified(v, map[string]int64{v: 1}, time.Now())
	m.Refusal(v, v)
	m.Takeover(v)
	m.CaughtUp(v, 1)
	m.Repairs(v, 1)
	m.Spans(v, 1)
}

// Security list, item 22: ten thousand errors are as many series as one.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.SetPeers([]string{"a"})
	var names []string
	for _, f := range gather(t, m.Registry()) {
		if ours(f.GetName()) {
			names = append(names, f.GetName())
		}
	}
	count := func() int {
		t.Helper()
		n, err := testutil.GatherAndCount(m.Registry(), names...)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	everything(m, "error 0")
	want := count()
	for i := range 10_000 {
		everything(m, fmt.Sprintf("error %d", i+1))
	}
	if got := count(); got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
}

func TestNilCountsNothing(t *testing.T) {
	t.Parallel()
	var m *metrics.Metrics
	m.SetPeers([]string{"a"})
	m.SetBuild(metrics.Build{})
	m.SetLimits(metrics.Limits{})
	everything(m, "a")
	if got := m.Registry(); got != nil {
		t.Errorf("got the registry %v, want nil", got)
	}
}

// The race detector's test: peers are set while pushes are counted and somebody scrapes.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	done := make(chan struct{}) // closed by the one writer
	go func() {
		defer close(done)
		for range 200 {
			everything(m, "a")
		}
	}()
	m.SetPeers([]string{"a"})
	for range 20 {
		gather(t, m.Registry())
	}
	<-done
	sum := 0.0
	for _, f := range gather(t, m.Registry()) {
		if f.GetName() == "quorumbox_catchup_entries_total" {
			for _, series := range f.GetMetric() {
				sum += series.GetCounter().GetValue()
			}
		}
	}
	if sum != 200 {
		t.Errorf("got %v entries, want 200 under all labels", sum)
	}
}
