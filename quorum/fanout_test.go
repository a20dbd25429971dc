package quorum_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorumbox/quorum"
)

const ackTimeout = 2 * time.Second

// Every test of this file runs on fake time, so durations are exact; and a goroutine that outlives its call makes the
// bubble panic.

// verdicts notes what the loop reported.
type verdicts struct {
	calls int
	at    time.Duration
	told  []string
	vote  string
}

func TestFanOut(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Millisecond
	tests := []struct {
		name    string
		needed  int
		replies map[string]reply

		wantTook    time.Duration
		wantToldAt  time.Duration
		wantTold    []string // nil: never told
		wantTell    string   // the vote when told
		wantOutcome string
	}{
		{
			name: "all answer before the deadline", needed: 2,
			replies:     map[string]reply{"a": acking(time.Millisecond), "b": acking(2 * time.Millisecond)},
			wantTook:    2 * time.Millisecond,
			wantOutcome: "met: 3 hold it, 2 of 3 needed; ack a b",
		},
		{
			name: "the vote is met before a slow peer", needed: 2,
			replies:  map[string]reply{"a": acking(5 * time.Millisecond), "b": acking(time.Second), "c": acking(time.Second)},
			wantTook: time.Second, wantToldAt: 7 * time.Millisecond, wantTold: []string{"b", "c"},
			wantTell:    "met: 2 hold it, 2 of 4 needed; ack a; waiting b c",
			wantOutcome: "met: 4 hold it, 2 of 4 needed; ack a b c",
		},
		{
			name: "a straggler hangs until the deadline", needed: 2,
			replies:  map[string]reply{"a": acking(5 * time.Millisecond), "b": hanging()},
			wantTook: ackTimeout, wantToldAt: 7 * time.Millisecond, wantTold: []string{"b"},
			wantTell:    "met: 2 hold it, 2 of 3 needed; ack a; waiting b",
			wantOutcome: "met: 2 hold it, 2 of 3 needed; ack a; unknown b",
		},
		{
			name: "grace catches a peer one nanosecond early", needed: 2,
			replies:     map[string]reply{"a": acking(5 * time.Millisecond), "b": acking(7*time.Millisecond - 1)},
			wantTook:    7*time.Millisecond - 1,
			wantOutcome: "met: 3 hold it, 2 of 3 needed; ack a b",
		},
		{
			name: "grace misses a peer one nanosecond late", needed: 2,
			replies:  map[string]reply{"a": acking(5 * time.Millisecond), "b": acking(7*time.Millisecond + 1)},
			wantTook: 7*time.Millisecond + 1, wantToldAt: 7 * time.Millisecond, wantTold: []string{"b"},
			wantTell:    "met: 2 hold it, 2 of 3 needed; ack a; waiting b",
			wantOutcome: "met: 3 hold it, 2 of 3 needed; ack a b",
		},
		{
			name: "unreachable is known early", needed: 4,
			replies:  map[string]reply{"a": failing(3 * time.Millisecond), "b": acking(time.Second), "c": hanging()},
			wantTook: ackTimeout, wantToldAt: 5 * time.Millisecond, wantTold: []string{"b", "c"},
			wantTell:    "unreachable (unreachable): 1 hold it, 4 of 4 needed; fail a; waiting b c",
			wantOutcome: "unreachable (timeout): 2 hold it, 4 of 4 needed; ack b; unknown c; fail a",
		},
		{
			name: "all fail at once", needed: 2,
			replies:     map[string]reply{"a": failing(0), "b": failing(0)},
			wantOutcome: "unreachable (unreachable): 1 hold it, 2 of 3 needed; fail a b",
		},
		{
			name: "the deadline decides", needed: 3,
			replies:     map[string]reply{"a": acking(time.Millisecond), "b": hanging()},
			wantTook:    ackTimeout,
			wantOutcome: "unreachable (timeout): 2 hold it, 3 of 3 needed; ack a; unknown b",
		},
		{
			name: "an ack one nanosecond before the deadline counts", needed: 2,
			replies:     map[string]reply{"a": acking(ackTimeout - 1)},
			wantTook:    ackTimeout - 1,
			wantOutcome: "met: 2 hold it, 2 of 2 needed; ack a",
		},
		{
			name: "an ack one nanosecond after the deadline does not", needed: 2,
			replies:     map[string]reply{"a": {after: ackTimeout + 1, outcome: quorum.Ack, deafToCtx: true}},
			wantTook:    ackTimeout + 1,
			wantOutcome: "unreachable (timeout): 1 hold it, 2 of 2 needed; unknown a",
		},
		{
			name: "a late refusal is still a refusal", needed: 2,
			replies:     map[string]reply{"a": {after: ackTimeout + 1, outcome: quorum.Refused, deafToCtx: true}},
			wantTook:    ackTimeout + 1,
			wantOutcome: "unreachable (refused): 1 hold it, 2 of 2 needed; refused a",
		},
		{
			name: "a send that ignores its context is waited for", needed: 2,
			replies:  map[string]reply{"a": acking(time.Millisecond), "b": {after: time.Hour, outcome: quorum.Ack, deafToCtx: true}},
			wantTook: time.Hour, wantToldAt: 3 * time.Millisecond, wantTold: []string{"b"},
			wantTell:    "met: 2 hold it, 2 of 3 needed; ack a; waiting b",
			wantOutcome: "met: 2 hold it, 2 of 3 needed; ack a; unknown b",
		},
		{
			name: "the local commit alone is enough", needed: 1,
			replies:  map[string]reply{"a": acking(time.Second)},
			wantTook: time.Second, wantToldAt: grace, wantTold: []string{"a"},
			wantTell:    "met: 1 hold it, 1 of 2 needed; waiting a",
			wantOutcome: "met: 2 hold it, 1 of 2 needed; ack a",
		},
		{
			name: "no peers", needed: 1,
			wantOutcome: "met: 1 hold it, 1 of 1 needed",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				p := peers{votes: 1, replies: tt.replies}
				tr := newTracker(t, tt.needed, p.names()...)
				var v verdicts
				decided := func(ctx context.Context, stragglers []string) error {
					v.calls++
					v.at, v.told, v.vote = time.Since(start), stragglers, tr.Describe()
					return ctx.Err()
				}
				f := quorum.FanOut{Deadline: start.Add(ackTimeout), Grace: grace}
				if err := f.Run(t.Context(), p.names(), []*quorum.Tracker{tr}, p.send, decided); err != nil {
					t.Fatal(err)
				}
				if got := time.Since(start); got != tt.wantTook {
					t.Errorf("took: got %s, want %s", got, tt.wantTook)
				}
				if got := tr.Describe(); got != tt.wantOutcome {
					t.Errorf("vote:\ngot  %s\nwant %s", got, tt.wantOutcome)
				}
				wantCalls := 0
				if tt.wantTold != nil {
					wantCalls = 1
				}
				if v.calls != wantCalls || v.at != tt.wantToldAt || !slices.Equal(v.told, tt.wantTold) || v.vote != tt.wantTell {
					t.Errorf("decided:\ngot  %d calls, at %s, %v, %q\nwant %d calls, at %s, %v, %q",
						v.calls, v.at, v.told, v.vote, wantCalls, tt.wantToldAt, tt.wantTold, tt.wantTell)
				}
			})
		})
	}
}

func TestFanOutWithoutGraceReportsAtOnce(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{0, -time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			p := peers{votes: 1, replies: map[string]reply{"a": acking(time.Millisecond), "b": acking(time.Second)}}
			tr := newTracker(t, 2, p.names()...)
			var toldAt time.Duration
			decided := func(context.Context, []string) error {
				toldAt = time.Since(start)
				return nil
			}
			f := quorum.FanOut{Deadline: start.Add(ackTimeout), Grace: grace}
			if err := f.Run(t.Context(), p.names(), []*quorum.Tracker{tr}, p.send, decided); err != nil {
				t.Fatal(err)
			}
			if want := time.Millisecond; toldAt != want {
				t.Errorf("told: got %s, want %s", toldAt, want)
			}
		})
	}
}

// A send that only waits for something is told as soon as nobody needs it any more, and then keeps nobody waiting, not even for the grace.
func TestFanOutSaysEnough(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		others   reply
		wantTold int
		wantTook time.Duration
	}{
		{"votes decided", acking(5 * time.Millisecond), 1, 5 * time.Millisecond},
		{"deadline first", hanging(), 0, ackTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				p := peers{votes: 1, replies: map[string]reply{"a": tt.others}}
				tr := newTracker(t, 2, "a", "waits")
				told, enough := 0, make(chan struct{})
				send := func(ctx context.Context, peer string) []quorum.Outcome {
					if peer == "a" {
						return p.send(ctx, peer)
					}
					select {
					case <-enough:
					case <-ctx.Done():
					}
					return []quorum.Outcome{quorum.Fail}
				}
				f := quorum.FanOut{Deadline: start.Add(ackTimeout), Grace: time.Second, Enough: func() {
					told++
					close(enough)
				}}
				decided := func(context.Context, []string) error {
					t.Error("got stragglers, want none")
					return nil
				}
				if err := f.Run(t.Context(), []string{"a", "waits"}, []*quorum.Tracker{tr}, send, decided); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); told != tt.wantTold || took != tt.wantTook {
					t.Errorf("got told %d times and took %s, want %d and %s", told, took, tt.wantTold, tt.wantTook)
				}
			})
		})
	}
}

// A send sees the one deadline and, when it passes, a cause that net/http may return in its place.
func TestFanOutContextOfASend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deadline := time.Now().Add(time.Hour)
		var seen time.Time
		var cause error
		send := func(ctx context.Context, _ string) []quorum.Outcome {
			seen, _ = ctx.Deadline()
			<-ctx.Done()
			cause = context.Cause(ctx)
			return []quorum.Outcome{quorum.Unknown}
		}
		tr := newTracker(t, 2, "a")
		f := quorum.FanOut{Deadline: deadline}
		if err := f.Run(t.Context(), []string{"a"}, []*quorum.Tracker{tr}, send, nil); err != nil {
			t.Fatal(err)
		}
		if !seen.Equal(deadline) {
			t.Errorf("deadline: got %s, want %s", seen, deadline)
		}
		if !errors.Is(cause, quorum.ErrDeadline) || !errors.Is(cause, context.DeadlineExceeded) {
			t.Errorf("cause: got %v, want ErrDeadline, which wraps context.DeadlineExceeded", cause)
		}
	})
}

func TestFanOutDeadlineInThePast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := peers{votes: 1, replies: map[string]reply{"a": acking(time.Millisecond)}}
		tr := newTracker(t, 2, "a")
		f := quorum.FanOut{Deadline: start.Add(-time.Nanosecond)}
		if err := f.Run(t.Context(), []string{"a"}, []*quorum.Tracker{tr}, p.send, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := tr.Reason(), quorum.ReasonTimeout; got != want || time.Since(start) != 0 {
			t.Errorf("got %s after %s, want %s at once", got, time.Since(start), want)
		}
	})
}
