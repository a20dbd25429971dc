package integration

import (
	"testing"
	"time"

	"quorumbox/outbox"
)

// Each fault of one peer, with W = N so that a single false acknowledgement would show: the verdict is honest, and when the fault is over the
// peer gets everything.
func TestPeerFault(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, mode, faults string
		reason             outbox.Reason
	}{
		{"slow beyond the deadline", "slow", `{"mode":"slow","delay":"5s"}`, outbox.ReasonTimeout},
		{"applies and loses the answer", "lose_answer", `{"mode":"lose_answer"}`, outbox.ReasonTimeout},
		{"503 with Retry-After", "status", `{"status":503,"retry_after":"1"}`, outbox.ReasonUnreachable},
		{"401", "status", `{"status":401}`, outbox.ReasonUnreachable},
		{"garbage 200", "garbage", `{"mode":"garbage"}`, outbox.ReasonTimeout},
		{"skipped", "skipped", `{"skipped":1}`, outbox.ReasonRefused},
		{"id drift", "drift", `{"mode":"drift"}`, outbox.ReasonIDDrift},
		{"quota", "quota", `{"mode":"quota","count":2}`, outbox.ReasonUnreachable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, setup{writes: "all", ackTimeout: time.Second})
			f.worker(t, "")
			faulty := f.peers[1]
			faulty.setFaults(t, test.faults)

			entries := f.store(t, memory("a", "team/a"))
			entries = append(entries, f.store(t, memories("row", 10)...)...)
			v := f.await(t, entries...)
			if v.Met != 0 || v.NotMet[test.reason] == 0 {
				t.Errorf("verdict %+v, want no entry met, and the reason %s", v, test.reason)
			}
			faulty.wantFault(t, test.mode)
			f.retriesMatch(t)
			if n := f.count(t, `select count(*) from batches where $1 = any (acked)`, faulty.id); n > 0 {
				t.Errorf("%d batches count the faulty peer", n)
			}
			until(t, "only the faulty peer lags", func() []string {
				others, err := f.strings(t.Context(), `select peer || ' lags in lane ' || lane from lagging where peer <> $1`, faulty.id)
				return append(others, problem(err)...)
			})
			if test.mode == "quota" {
				return // the day's quota is not waited for
			}

			faulty.setFaults(t, "")
			f.converge(t, insertsOnly)
			wantMet(t, f.await(t, f.store(t, memories("later", 5)...)...), 5)
		})
	}
}

func TestPeerKilledUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	f.worker(t, "")
	l := startLoad(t, 3, f.inserts)
	l.reach(t, 150)
	f.peers[0].kill(t)
	l.reach(t, 300)
	if f.count(t, `select count(*) from lagging where peer = $1`, f.peers[0].id) == 0 {
		t.Error("C10: the killed peer does not lag")
	}
	f.peers[0].start(t)
	l.reach(t, 300)
	l.stop(t)
	f.converge(t, insertsOnly)
	// Two of three peers are enough for a majority, also where one of them still owes an answer in a lane.
	if missed := f.count(t, `select count(*) from batches where verdict <> 'met'`); missed > 0 {
		t.Errorf("%d of %d batches are not met, although two of three peers were up all the time", missed, f.count(t, `select count(*) from batches`))
	}
}

// Memories move, get other titles, are deleted and come back, while one peer is sometimes down, sometimes slow, and sometimes loses answers.
func TestChangesWithALaggingPeer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{ackTimeout: time.Second})
	f.worker(t, "")
	l := startLoad(t, 4, f.anything)
	l.reach(t, 100)
	peer := f.peers[2]
	for _, phase := range []struct{ faults, mode string }{
		{`{"mode":"down"}`, "down"},
		{"", ""},
		{`{"mode":"lose_answer","probability":0.5}`, "lose_answer"},
		{`[{"mode":"status","status":503,"probability":0.3},{"mode":"slow","delay":"200ms","probability":0.3}]`, "status"},
		{"", ""},
		{`{"mode":"slow","delay":"3s","probability":0.5}`, "slow"},
	} {
		peer.setFaults(t, phase.faults)
		l.reach(t, 150)
		if phase.mode != "" {
			until(t, "the fault "+phase.mode+" has happened", func() []string {
				c, err := peer.counters(t.Context())
				return append(problem(err), holds(c.Faults[phase.mode] > 0, "C10: it has not")...)
			})
		}
	}
	peer.setFaults(t, "")
	l.stop(t)
	f.converge(t, changes)
}
