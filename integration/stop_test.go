package integration

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopMargin is what a worker needs to stop beside what its jobs are given: to write down what it leaves, and to close what is open. On a busy machine.
const stopMargin = 5 * time.Second

// Of two workers under load one after the other is told to stop. The one that stays goes on with what it leaves: nothing waits for a lease to run out, nothing is
// pushed twice, and nothing is lost.
func TestSigtermAgainAndAgain(t *testing.T) {
	t.Parallel()
	const rounds, softStop = 5, 8 * time.Second
	// A long acknowledgement timeout, so that no lease runs out because the machine is busy.
	f := newFleet(t, setup{ackTimeout: 5 * time.Second, settings: fmt.Sprintf("jobs: {soft_stop: %s}\n", softStop)})
	f.peers[2].setFaults(t, `{"mode":"slow","delay":"40ms"}`) // a straggler of each fan-out, which its retries serve
	f.worker(t, "")
	l := startLoad(t, 4, f.inserts)
	for range rounds {
		w := f.worker(t, "")
		l.reach(t, 150)
		until(t, w.name+" works", func() []string {
			return holds(f.count(t, `select count(*) from river_job where $1 = any (attempted_by)`, w.client()) > 5, "it has had too few jobs")
		})
		w.signal(t, syscall.SIGTERM)
		w.wait(t, softStop+stopMargin)
		w.wantExit(t, 0)
		if n := f.count(t, `select count(*) from river_job where state = 'running' and attempted_by[cardinality(attempted_by)] = $1`, w.client()); n > 0 {
			t.Errorf("%s left %d jobs running", w.name, n)
		}
		if !bytes.Contains(w.output(), []byte("worker stopping")) || !bytes.Contains(w.output(), []byte("worker stopped")) {
			t.Errorf("%s does not say that it stops:\n%s", w.name, w.tail(5))
		}
	}
	l.reach(t, 100)
	l.stop(t)
	f.peers[2].setFaults(t, "")
	f.noTakeovers(t)
	f.converge(t, insertsOnly)
	if again := f.sentTwice(t.Context()); len(again) > 0 {
		t.Errorf("pushed again because a worker stopped:\n%s", list(again))
	}
	if f.count(t, `select count(*) from river_job where kind = 'peer_retry'`) == 0 {
		t.Error("C10: there were no retries")
	}
	f.noTakeovers(t)
}

// noTakeovers checks that no sweeper had to take over what a worker left.
func (f *fleet) noTakeovers(t *testing.T) {
	t.Helper()
	for _, w := range f.workers {
		if lines := grep(string(w.output()), `"work taken over"`); lines != "" {
			t.Errorf("%s had to take over:\n%s", w.name, lines)
		}
	}
}

// What does not end within jobs.soft_stop is cancelled, and handed to the next worker at once: what may be under way is in doubt, and nobody waits for a lease.
func TestSigtermBeyondSoftStop(t *testing.T) {
	t.Parallel()
	const softStop = 300 * time.Millisecond
	for _, tt := range []struct {
		name string
		lags bool // the slow peer lags, and its retry is cut; otherwise a fan-out is
	}{{"fan-out", false}, {"retry", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, setup{ackTimeout: 5 * time.Second, writes: "3", settings: fmt.Sprintf("jobs: {soft_stop: %s}\n", softStop)})
			slow := f.peers[2]
			f.peers[1].setFaults(t, `{"mode":"slow","delay":"1ms"}`)
			if tt.lags {
				slow.kill(t)
			} else {
				slow.setFaults(t, `{"mode":"slow","delay":"3s"}`)
				f.peers[1].setFaults(t, `{"mode":"slow","delay":"3s"}`)
			}
			first := f.worker(t, "")
			entries := f.store(t, memories("row", 20)...)
			if tt.lags {
				wantMet(t, f.await(t, entries...), len(entries))
				slow.start(t)
				slow.setFaults(t, `{"mode":"slow","delay":"3s"}`)
			}
			until(t, "a push is under way", func() []string {
				c, err := slow.counters(t.Context())
				return append(problem(err), holds(c.Concurrent > 0, "none is")...)
			})
			begun := time.Now()
			first.signal(t, syscall.SIGTERM)
			first.wait(t, softStop+stopMargin)
			first.wantExit(t, 0)
			t.Logf("stopped after %s", time.Since(begun).Round(time.Millisecond))
			if n := f.count(t, `select count(*) from lagging where holder is not null`); n > 0 {
				t.Errorf("%d lanes are still held", n)
			}
			if n := f.count(t, `select count(*) from river_job where state = 'running'`); n > 0 {
				t.Errorf("%d jobs are still running", n)
			}
			if n := f.count(t, `select count(*) from doubts where peer = 'peer-3'`); n == 0 {
				t.Error("what was under way is not in doubt")
			}
			for _, p := range f.peers {
				p.setFaults(t, "")
			}
			f.worker(t, "")
			f.await(t, entries...)
			until(t, "peer-3 has everything", func() []string {
				return holds(f.count(t, `select count(*) from lagging`) == 0, "it lags")
			})
			f.noTakeovers(t)
			f.converge(t, insertsOnly)
		})
	}
}

// A second signal does not wait for anything. What the worker had is taken over as after a kill.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, setup{ackTimeout: 5 * time.Second, writes: "all"})
			for _, p := range f.peers {
				p.setFaults(t, `{"mode":"slow","delay":"4s"}`)
			}
			w := f.worker(t, "")
			f.store(t, memories("row", 10)...)
			until(t, "a push is under way", func() []string {
				c, err := f.peers[0].counters(t.Context())
				return append(problem(err), holds(c.Concurrent > 0, "none is")...)
			})
			w.signal(t, syscall.SIGTERM)
			until(t, "the worker stops", func() []string {
				return holds(bytes.Contains(w.output(), []byte("worker stopping")), "it has not said so")
			})
			if w.hasEnded() {
				t.Fatal("C10: the worker has ended at the first signal")
			}
			begun := time.Now()
			until(t, "the second signal ends it", func() []string {
				_ = w.cmd.Process.Signal(s) // it may have ended
				return holds(w.hasEnded(), "it has not")
			})
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("it took %s, want at once", took)
			}
			if status, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != s {
				t.Errorf("%s, want ended by %s", w.cmd.ProcessState, s)
			}
			if strings.Contains(string(w.output()), "worker stopped") {
				t.Error("C10: it has ended by itself")
			}
			for _, p := range f.peers {
				p.setFaults(t, "")
			}
			f.worker(t, "")
			f.converge(t, insertsOnly)
		})
	}
}
