package jobs_test

import (
	"testing"

	dto "github.com/prometheus/client_model/go"

	"quorumbox/internal/metrics"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// What an operator asks first, how long a write takes until a quorum has it, begins with the writer's insert, and tells the wait for the relay from the rest.
func TestTimesBeginWithTheWrite(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	if err := jobs.RegisterPeers(t.Context(), f.pool, []string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	entries := f.store("m-1", "m-2", "m-3")
	f.exec(`update outbox set created_at = created_at - interval '1 hour' where key = 'm-1'`)
	counts := metrics.New()
	f.run(func(c *jobs.Config) { c.Metrics = counts })
	if v := f.await(entries...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}

	families, err := counts.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	histogram := func(name, label string) *dto.Histogram {
		for _, family := range families {
			for _, series := range family.GetMetric() {
				if family.GetName() == name && (label == "" || series.GetLabel()[0].GetValue() == label) {
					return series.GetHistogram()
				}
			}
		}
		t.Fatalf("%s has no series %s", name, label)
		return nil
	}
	for _, tt := range []struct {
		name, label string
		count       uint64
		from, below float64
	}{
		{"quorumbox_write_to_dispatch_seconds", "", 3, 3600, 3700},
		{"quorumbox_write_to_verdict_seconds", "met", 3, 3600, 3700},
		{"quorumbox_write_to_verdict_seconds", "not_met", 0, 0, 1},
		{"quorumbox_dispatch_to_verdict_seconds", "", 1, 0, 60},
	} {
		h := histogram(tt.name, tt.label)
		if n, sum := h.GetSampleCount(), h.GetSampleSum(); n != tt.count || sum < tt.from || sum >= tt.below {
			t.Errorf("%s %s: got %d, %v s in all, want %d, from %v to %v s", tt.name, tt.label, n, sum, tt.count, tt.from, tt.below)
		}
	}
	if wait, whole := histogram("quorumbox_write_to_dispatch_seconds", ""), histogram("quorumbox_write_to_verdict_seconds", "met"); wait.GetSampleSum() >= whole.GetSampleSum() {
		t.Errorf("got %v s until the dispatches and %v s until the verdicts, want more", wait.GetSampleSum(), whole.GetSampleSum())
	}
}

// A kind without a name in the list would be counted as of another release.
func TestKinds(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.await(f.store("m-1")...)
	if n := f.scalar(`select count(*) from river_job where kind <> all ('{fan_out,peer_retry,redeliver,repair,snapshot}')`); n != 0 || len(jobs.Kinds()) != 5 {
		t.Errorf("got %d jobs of another kind, and the kinds %v", n, jobs.Kinds())
	}
}
