package health_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/health"
)

func TestStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := health.New(0)
		fast, slow := r.Loop("relay", ""), r.Loop("verify", "")
		want := func(when string, names ...string) {
			t.Helper()
			if d := cmp.Diff(append([]string{}, names...), health.Names(r.Stuck())); d != "" {
				t.Errorf("%s: (-want +got)\n%s", when, d)
			}
		}
		slow.Turn(time.Hour)
		want("at the start")
		time.Sleep(health.Patience - time.Nanosecond)
		want("before the end of the patience, without a turn")
		time.Sleep(time.Nanosecond)
		want("at its end", "relay")
		fast.Turn(10 * time.Second)
		want("after a turn")
		time.Sleep(10*time.Second + health.Patience)
		want("late by the patience", "relay")
		if s := r.Stuck(); s[0].Late != health.Patience {
			t.Errorf("got late by %s, want %s", s[0].Late, health.Patience)
		}
		fast.Turn(-time.Hour) // which is now
		want("after a turn with a bound in the past")
		time.Sleep(health.Patience - time.Nanosecond)
		want("a patience later, but for an instant")
		fast.Turn(0)
		time.Sleep(time.Hour)
		want("hours later", "relay", "verify")
	})
}

func TestExcuse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := health.New(time.Second)
		r.Loop("relay", "")
		rare := r.Loop("verify", "")
		rare.Turn(time.Hour)
		time.Sleep(time.Minute)
		r.Excuse()
		if s := r.Stuck(); len(s) != 0 {
			t.Errorf("got %v after the excuse, want none", s)
		}
		time.Sleep(time.Second)
		if d := cmp.Diff([]health.Stuck{{Name: "relay", Late: time.Second}}, r.Stuck()); d != "" {
			t.Errorf("a patience after the excuse (-want +got):\n%s", d)
		}
		time.Sleep(time.Hour - time.Minute - time.Second) // an excuse takes nothing from a loop that is not late
		if s := health.Names(r.Stuck()); len(s) != 1 {
			t.Errorf("got %v, want the relay only", s)
		}
	})
}

// Several loops of one name are one in what everybody may see.
func TestNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := health.New(time.Second)
		r.Loop("river", "fan_out")
		r.Loop("relay", "")
		r.Loop("river", "peer_a")
		time.Sleep(time.Second)
		if d := cmp.Diff([]string{"relay", "river"}, health.Names(r.Stuck())); d != "" {
			t.Error(d)
		}
		if s := r.Stuck(); len(s) != 3 || s[2].Detail != "peer_a" {
			t.Errorf("got %v, want all three with their details", s)
		}
	})
}

func TestNobodyKeepsAccount(t *testing.T) {
	t.Parallel()
	var turned health.Turned
	turned.Turn(time.Second) // does not panic
}

func TestConcurrentTurns(t *testing.T) {
	t.Parallel()
	r := health.New(time.Hour)
	done := make(chan struct{})
	for range 8 {
		turned := r.Loop("relay", "")
		go func() {
			for range 1000 {
				turned.Turn(time.Second)
			}
			done <- struct{}{}
		}()
	}
	for range 8 {
		r.Excuse()
		if s := r.Stuck(); len(s) != 0 {
			t.Errorf("got %v", s)
		}
		<-done
	}
}
