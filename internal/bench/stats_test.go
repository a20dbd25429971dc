//go:build unix

package bench

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		values []float64
		want   Spread
	}{
		"none":                    {nil, Spread{}},
		"one":                     {[]float64{7}, Spread{Median: 7, Min: 7, Max: 7}},
		"even number, unsorted":   {[]float64{4, 1, 3, 2}, Spread{Median: 2.5, Min: 1, Max: 4}},
		"odd number with outlier": {[]float64{1000, 1, 2}, Spread{Median: 2, Min: 1, Max: 1000}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(spread(test.values), test.want); diff != "" {
				t.Errorf("spread (-got +want):\n%s", diff)
			}
		})
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100-i) * time.Millisecond // 100 ms down to 1 ms
	}
	tests := map[string]struct {
		durations []time.Duration
		want      Quantiles
	}{
		"none":    {nil, Quantiles{}},
		"one":     {[]time.Duration{1500 * time.Microsecond}, Quantiles{N: 1, P50: 1.5, P95: 1.5, P99: 1.5, Max: 1.5}},
		"two":     {[]time.Duration{3 * time.Millisecond, time.Millisecond}, Quantiles{N: 2, P50: 1, P95: 3, P99: 3, Max: 3}},
		"hundred": {hundred, Quantiles{N: 100, P50: 50, P95: 95, P99: 99, Max: 100}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(quantiles(test.durations), test.want); diff != "" {
				t.Errorf("quantiles (-got +want):\n%s", diff)
			}
		})
	}
}

func TestReportComparesMedians(t *testing.T) {
	t.Parallel()
	report := Report{Machine: Machine{Own: true}, Samples: []Sample{
		{Scenario: Bare, Rate: 1000, CPU: CPU{Postgres: 0.25}},
		{Scenario: Ours, Rate: 500, CPU: CPU{Postgres: 0.25, Worker: 0.25}},
		{Scenario: Plain, Rate: 100},
		{Scenario: Ours, Rate: 600, CPU: CPU{Peers: 0.5}},
		{Scenario: Bare, Rate: 9000, CPU: CPU{Writers: 0.25}},
		{Scenario: Bare, Rate: 800, CPU: CPU{Postgres: 0.25}},
		{Scenario: Latency, Quorum: &LatencySample{verdict: []time.Duration{time.Millisecond, 3 * time.Millisecond}}},
		{Scenario: Latency, Quorum: &LatencySample{verdict: []time.Duration{2 * time.Millisecond}}},
	}}
	report.summarize()
	if got, want := report.OfBare, 0.55; got != want {
		t.Errorf("ours of bare: got %v, want %v", got, want)
	}
	if got, want := report.OfPlain, 5.5; got != want {
		t.Errorf("ours of plain: got %v, want %v", got, want)
	}
	if got, want := report.CPUOfBare, 0.5; got != want {
		t.Errorf("ours of bare by CPU: got %v, want %v", got, want)
	}
	want := Quantiles{N: 3, P50: 2, P95: 3, P99: 3, Max: 3}
	if diff := cmp.Diff(report.Latency.Verdict, want); diff != "" {
		t.Errorf("latency of all rounds (-got +want):\n%s", diff)
	}
}

func TestReportWithoutAScenarioHasNoRatio(t *testing.T) {
	t.Parallel()
	report := Report{Samples: []Sample{{Scenario: Ours, Rate: 500}}}
	report.summarize()
	if report.OfBare != 0 || report.OfPlain != 0 || report.Latency != nil {
		t.Errorf("got %v, %v, %v, want nothing", report.OfBare, report.OfPlain, report.Latency)
	}
}

func TestCPUIsPerThousandWrites(t *testing.T) {
	t.Parallel()
	before := usage{postgres: time.Second, writers: time.Second, peers: time.Second}
	after := usage{postgres: 3 * time.Second, writers: 2 * time.Second, worker: 500 * time.Millisecond, peers: 1250 * time.Millisecond}
	got := before.until(after, 2000)
	want := CPU{Postgres: 1, Writers: 0.5, Worker: 0.25, Peers: 0.125}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("CPU per 1000 writes (-got +want):\n%s", diff)
	}
	if total := got.Total(); total != 1.875 {
		t.Errorf("total: got %v, want 1.875", total)
	}
}

func TestForeignShareOfTheProcessors(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	before := usage{busy: 100 * time.Second, postgres: 10 * time.Second, at: start}
	after := usage{busy: 110 * time.Second, postgres: 14 * time.Second, writers: time.Second, at: start.Add(10 * time.Second)}
	if got := before.foreign(after, 2); got != 0.25 {
		t.Errorf("got %v, want 5 s of 20 s", got)
	}
	if got := (usage{}).foreign(usage{busy: time.Second, at: start}, 2); got != 0 {
		t.Errorf("got %v, want 0 where it cannot be told", got)
	}
}
