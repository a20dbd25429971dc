package page

import (
	"math"
	"testing"
	"time"

	"quorumbox/internal/status"
	"quorumbox/outbox"
)

func decided(lane int16, number, entries int64, at time.Time, took time.Duration) status.Decision {
	s := status.Seconds(took.Seconds())
	return status.Decision{Lane: lane, Number: number, Entries: entries, Met: true, At: at, Oldest: &s, Newest: &s}
}

// last is the newest number of a series.
func last[T any](t *testing.T, series []*T) T {
	t.Helper()
	if len(series) != Points || series[Points-1] == nil {
		t.Fatalf("got %d points, the last %v, want %d known ones", len(series), series[len(series)-1], Points)
	}
	return *series[Points-1]
}

func TestRecent(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0).Add(Step / 2) // in the middle of a step
	before := now.Add(-Step)
	var r recent
	missed := decided(1, 7, 4, before, time.Hour)
	missed.Met, missed.Reason = false, outbox.ReasonTimeout
	pruned := decided(2, 9, 5, before, 0)
	pruned.Oldest, pruned.Newest = nil, nil
	r.add([]status.Decision{
		decided(0, 3, 10, before, 8*time.Millisecond), decided(0, 4, 10, now, time.Second), missed, pruned,
		decided(3, 1, 1, now.Add(-time.Hour), time.Second), // longer ago than is shown
	}, now, 100)
	if r.marks != (status.Marks{0: 4, 1: 7, 2: 9, 3: 1}) {
		t.Errorf("got the marks %v", r.marks)
	}
	v := r.view(now)
	if met, notMet := last(t, v.Met), last(t, v.NotMet); met != 15 || notMet != 4 {
		t.Errorf("got %d met and %d not met in the last whole step, want 15 and 4", met, notMet)
	}
	// What took an hour missed the quorum.
	if p50, p99 := last(t, v.P50), last(t, v.P99); math.Abs(p50-8) > 0.3 || p50 != p99 {
		t.Errorf("got %v and %v ms, want 8", p50, p99)
	}
	if m := v.Minute; m.Window != 60 || m.Met != 15 || m.NotMet[outbox.ReasonTimeout] != 4 || m.PerSecond != 0.3 {
		t.Errorf("got the minute %+v", m)
	}
	if got := r.verdicts(now); got.Met != 25 || got.Window != 300 || got.NotMet[outbox.ReasonTimeout] != 4 {
		t.Errorf("got the verdicts %+v, with those of the step that is not over", got)
	}
	if len(r.steps) != 2 {
		t.Errorf("got %d steps in memory, want the 2 that can be shown", len(r.steps))
	}
	r.add(nil, now.Add(time.Duration(Points+2)*Step), 100)
	if len(r.steps) != 0 {
		t.Errorf("got %d steps in memory later, want none", len(r.steps))
	}
}

// Where a reading may have missed something, nothing is shown rather than too little.
func TestRecentThatIsNotWhole(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	var r recent
	r.add([]status.Decision{
		decided(0, 100, 1, now.Add(-20*Step), time.Second), decided(0, 101, 1, now.Add(-time.Millisecond), time.Second),
		decided(1, 1, 1, now.Add(-50*Step), time.Second),
	}, now, 2)
	v := r.view(now)
	known := 0
	for i := range v.Met {
		if v.Met[i] != nil {
			known++
		}
	}
	if known != 20 || v.Met[Points-21] != nil || v.Met[Points-20] == nil {
		t.Errorf("got %d known steps, want those since the oldest batch of the lane that had more: 20", known)
	}
	if v.Minute.Window != 60 {
		t.Errorf("got a minute of %v s, want 60", v.Minute.Window)
	}
	r.add([]status.Decision{decided(2, 1, 1, now.Add(-3*Step), time.Second), decided(2, 2, 1, now, time.Second)}, now, 2)
	if m := r.view(now).Minute; m.Window != status.Seconds(3*Step.Seconds()) {
		t.Errorf("got a minute of %v s, want the 15 that are known", m.Window)
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	l := latencies{}
	for i := 1; i <= 1000; i++ {
		l.add(float64(i), 1)
	}
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990, 1: 1000} {
		if got := *l.quantile(q); math.Abs(got-want)/want > 0.03 {
			t.Errorf("quantile %v: got %v, want %v within 3 %%", q, got, want)
		}
	}
	if (latencies{}).quantile(0.5) != nil {
		t.Error("got a quantile of nothing")
	}
	l = latencies{}
	l.add(-5, 1) // clocks that were set back
	if got := *l.quantile(0.5); got > 0.2 {
		t.Errorf("got %v of a negative time, want about 0", got)
	}
}
