package quorum_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorumbox/quorum"
)

func TestFanOutParentCancelled(t *testing.T) {
	t.Parallel()
	errShutdown := fmt.Errorf("worker stops: %w", context.Canceled)
	tests := []struct {
		name     string
		needed   int
		cancelAt time.Duration
		wantVote string
	}{
		{"before the vote is decided", 3, 10 * time.Millisecond, "unreachable (timeout): 2 hold it, 3 of 3 needed; ack a; unknown b"},
		{"during grace", 2, 1500 * time.Microsecond, "met: 2 hold it, 2 of 3 needed; ack a; unknown b"},
		{"while a straggler is waited for", 2, time.Second, "met: 2 hold it, 2 of 3 needed; ack a; unknown b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				stop := time.AfterFunc(tt.cancelAt, func() { cancel(errShutdown) })
				defer stop.Stop()
				p := peers{votes: 1, replies: map[string]reply{"a": acking(time.Millisecond), "b": hanging()}}
				tr := newTracker(t, tt.needed, p.names()...)
				calls := 0
				decided := func(context.Context, []string) error {
					calls++
					return nil
				}
				f := quorum.FanOut{Deadline: start.Add(time.Hour), Grace: time.Millisecond}
				err := f.Run(ctx, p.names(), []*quorum.Tracker{tr}, p.send, decided)
				if !errors.Is(err, errShutdown) {
					t.Errorf("got %v, want the cause %v", err, errShutdown)
				}
				if got := time.Since(start); got != tt.cancelAt {
					t.Errorf("took: got %s, want %s", got, tt.cancelAt)
				}
				if got := tr.Describe(); got != tt.wantVote {
					t.Errorf("vote:\ngot  %s\nwant %s", got, tt.wantVote)
				}
				wantCalls := 0
				if tt.cancelAt == time.Second {
					wantCalls = 1
				}
				if calls != wantCalls {
					t.Errorf("decided: got %d calls, want %d", calls, wantCalls)
				}
			})
		})
	}
}

// The sends end with a cause and are waited for when the verdict could not be written down.
func TestFanOutDecidedFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		errStore := errors.New("database is gone")
		var cause error
		send := func(ctx context.Context, peer string) []quorum.Outcome {
			if peer == "a" {
				return []quorum.Outcome{quorum.Ack}
			}
			<-ctx.Done()
			cause = context.Cause(ctx)
			time.Sleep(3 * time.Second) // the send takes its time to end
			return []quorum.Outcome{quorum.Unknown}
		}
		tr := newTracker(t, 2, "a", "b")
		f := quorum.FanOut{Deadline: start.Add(time.Hour), Grace: time.Second}
		err := f.Run(t.Context(), []string{"a", "b"}, []*quorum.Tracker{tr}, send, func(context.Context, []string) error { return errStore })
		if !errors.Is(err, errStore) {
			t.Errorf("got %v, want %v", err, errStore)
		}
		if !errors.Is(cause, context.Canceled) || !strings.Contains(cause.Error(), "given up") {
			t.Errorf("cause: got %v, want one that wraps context.Canceled", cause)
		}
		if got, want := time.Since(start), 4*time.Second; got != want {
			t.Errorf("took: got %s, want %s", got, want)
		}
	})
}

// The others keep sending while decided writes; an answer from that time counts by when its send returned.
func TestFanOutAnswersWhileDecidedWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := peers{votes: 1, replies: map[string]reply{
			"a": acking(time.Millisecond), "b": acking(ackTimeout - 1), "c": {after: ackTimeout + 1, outcome: quorum.Ack, deafToCtx: true},
		}}
		tr := newTracker(t, 2, p.names()...)
		decided := func(context.Context, []string) error {
			time.Sleep(time.Minute) // a slow commit
			return nil
		}
		f := quorum.FanOut{Deadline: start.Add(ackTimeout)}
		if err := f.Run(t.Context(), p.names(), []*quorum.Tracker{tr}, p.send, decided); err != nil {
			t.Fatal(err)
		}
		if got, want := tr.Describe(), "met: 3 hold it, 2 of 4 needed; ack a b; unknown c"; got != want {
			t.Errorf("vote:\ngot  %s\nwant %s", got, want)
		}
		if got, want := time.Since(start), time.Minute+time.Millisecond; got != want {
			t.Errorf("took: got %s, want %s", got, want)
		}
	})
}

// Several votes share the sends; each has its own outcome, and the loop reports when the last one is decided.
func TestFanOutSeveralVotes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		send := func(_ context.Context, peer string) []quorum.Outcome {
			switch peer {
			case "a":
				time.Sleep(time.Millisecond)
				return []quorum.Outcome{quorum.Ack, quorum.Refused, quorum.Ack, quorum.Ack} // one too many
			case "b":
				time.Sleep(2 * time.Millisecond)
				return []quorum.Outcome{quorum.Ack, quorum.Ack} // one short
			default:
				time.Sleep(3 * time.Millisecond)
				return []quorum.Outcome{0, 99, quorum.Ack} // not outcomes
			}
		}
		names := []string{"a", "b", "c"}
		votes := []*quorum.Tracker{newTracker(t, 2, names...), newTracker(t, 4, names...), newTracker(t, 3, names...)}
		var toldAt time.Duration
		decided := func(context.Context, []string) error {
			toldAt = time.Since(start)
			return nil
		}
		f := quorum.FanOut{Deadline: start.Add(ackTimeout)}
		if err := f.Run(t.Context(), names, votes, send, decided); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"met: 3 hold it, 2 of 4 needed; ack a b; unknown c",
			"unreachable (refused): 2 hold it, 4 of 4 needed; ack b; refused a; unknown c",
			"met: 3 hold it, 3 of 4 needed; ack a c; unknown b",
		}
		for i, tr := range votes {
			if got := tr.Describe(); got != want[i] {
				t.Errorf("vote %d:\ngot  %s\nwant %s", i, got, want[i])
			}
		}
		if toldAt != 0 {
			t.Errorf("decided was called at %s although the last vote needed the last peer", toldAt)
		}
	})
}

// A tracker may hold a peer that is not sent to, recorded by the caller beforehand.
func TestFanOutSkippedPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := peers{votes: 1, replies: map[string]reply{"a": acking(time.Millisecond)}}
		tr := newTracker(t, 3, "a", "lagging")
		record(t, tr, "lagging", quorum.Fail)
		f := quorum.FanOut{Deadline: start.Add(ackTimeout)}
		if err := f.Run(t.Context(), []string{"a"}, []*quorum.Tracker{tr}, p.send, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := tr.Describe(), "unreachable (unreachable): 2 hold it, 3 of 3 needed; ack a; fail lagging"; got != want {
			t.Errorf("vote:\ngot  %s\nwant %s", got, want)
		}
	})
}

func TestFanOutRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		peers []string
		want  error
	}{
		{"peer named twice", []string{"a", "b", "a"}, quorum.ErrDuplicatePeer},
		{"peer without a vote", []string{"a", "c"}, quorum.ErrUnknownPeer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var sends atomic.Int32
			send := func(context.Context, string) []quorum.Outcome {
				sends.Add(1)
				return nil
			}
			tr := newTracker(t, 2, "a", "b")
			f := quorum.FanOut{Deadline: time.Now().Add(time.Hour)}
			err := f.Run(t.Context(), tt.peers, []*quorum.Tracker{tr}, send, nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := sends.Load(); got != 0 {
				t.Errorf("sends: got %d, want none", got)
			}
		})
	}
}

// Law: whatever 64 peers do, the vote that Run leaves behind is the one of their answers before the deadline.
func TestFanOutAgreesWithTracker(t *testing.T) {
	t.Parallel()
	for seed := range 50 {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			replies := map[string]reply{}
			for i := range 64 {
				after := time.Duration((i*7919+seed*104729)%4001)*time.Millisecond + time.Microsecond
				replies[fmt.Sprintf("p%02d", i)] = reply{after: after, outcome: quorum.Outcome(1 + (i+seed)%5), deafToCtx: i%3 == 0} //nolint:gosec // G115: 1 to 5
			}
			p := peers{votes: 1, replies: replies}
			tr := newTracker(t, seed+1, p.names()...)
			want := newTracker(t, seed+1, p.names()...)
			for peer, r := range replies {
				o := r.outcome
				if r.after > ackTimeout && (o == quorum.Ack || !r.deafToCtx) {
					o = quorum.Unknown
				}
				record(t, want, peer, o)
			}
			f := quorum.FanOut{Deadline: start.Add(ackTimeout), Grace: time.Millisecond}
			told := 0
			decided := func(_ context.Context, stragglers []string) error {
				told++
				if tr.State() == quorum.Pending || !slices.Equal(stragglers, tr.Waiting()) {
					t.Errorf("seed %d: told of %v with %s", seed, stragglers, tr.Describe())
				}
				return nil
			}
			if err := f.Run(t.Context(), p.names(), []*quorum.Tracker{tr}, p.send, decided); err != nil {
				t.Fatal(err)
			}
			if got := tr.Describe(); got != want.Describe() {
				t.Errorf("seed %d:\ngot  %s\nwant %s", seed, got, want.Describe())
			}
			if told > 1 {
				t.Errorf("seed %d: decided was called %d times", seed, told)
			}
		})
	}
}
