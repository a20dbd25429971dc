package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Two workers share the work, and nothing is sent or recorded twice: neither where each verdict waits for every peer, nor where retries take
// stragglers over from fan-outs.
func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	for _, writes := range []string{"all", "majority"} {
		t.Run(writes, func(t *testing.T) {
			t.Parallel()
			testTwoWorkers(t, writes)
		})
	}
}

func testTwoWorkers(t *testing.T, writes string) {
	t.Helper()
	f := newFleet(t, setup{writes: writes})
	f.worker(t, "")
	f.worker(t, "")
	l := startLoad(t, 4, f.inserts)
	l.reach(t, 800)
	l.stop(t)
	f.converge(t, insertsOnly)
	if again := f.sentTwice(t.Context()); len(again) > 0 {
		t.Errorf("sent twice:\n%s", list(again))
	}
	const fanOuts = `select count(*) from river_job where kind = 'fan_out'`
	if n := f.count(t, fanOuts+` and (state <> 'completed' or attempt <> 1 or cardinality(attempted_by) <> 1)`); n > 0 {
		t.Errorf("%d of %d fan-outs took more than one attempt", n, f.count(t, fanOuts))
	}
	if n := f.count(t, `select count(distinct attempted_by[1]) from river_job where kind = 'fan_out'`); n != 2 {
		t.Errorf("C10: %d workers worked, want 2", n)
	}
}

// SIGTERM in the middle of slow pushes: the worker ends what it has begun and leaves the rest to the next one. W is N, as in [TestTwoWorkers].
func TestSigtermDrains(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{writes: "all"})
	for _, p := range f.peers {
		p.setFaults(t, `{"mode":"slow","delay":"150ms"}`)
	}
	first := f.worker(t, "")
	l := startLoad(t, 3, f.inserts)
	l.reach(t, 300)
	first.terminate(t)
	if n := f.count(t, `select count(*) from river_job where kind = 'fan_out' and state = 'running'`); n > 0 {
		t.Errorf("%d fan-outs were left running", n)
	}
	if f.count(t, `select count(*) from batches`) == 0 {
		t.Error("C10: the first worker had nothing to do")
	}

	l.reach(t, 100)
	if f.count(t, `select count(*) from undispatched`) == 0 {
		t.Error("C10: nothing is left for the next worker")
	}
	f.worker(t, "")
	l.stop(t)
	f.converge(t, insertsOnly)
	if again := f.sentTwice(t.Context()); len(again) > 0 {
		t.Errorf("repeated after SIGTERM:\n%s", list(again))
	}
	if n := f.count(t, `select count(*) from batches where verdict <> 'met'`); n > 0 {
		t.Errorf("%d batches are not met", n)
	}
}

// SIGTERM while a peer lags and its retries go on.
func TestSigtermWithALaggingPeer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	f.peers[2].setFaults(t, `{"status":503}`)
	first := f.worker(t, "")
	wantMet(t, f.await(t, f.store(t, memories("row", 50)...)...), 50)
	first.terminate(t)
	f.retriesMatch(t)

	f.peers[2].wantFault(t, "status")
	f.peers[2].setFaults(t, "")
	f.worker(t, "")
	f.converge(t, insertsOnly)
}

// Secrets and contents stay out of logs and jobs, also where requests are refused and peers die. Every other test checks it too; this one has
// the refusals that could carry them.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{ackTimeout: time.Second})
	f.worker(t, "")
	if len(f.secrets) < 4 {
		t.Fatalf("C10: not enough secrets to look for: %d", len(f.secrets))
	}
	n := 0
	for _, faults := range []string{`{"status":400}`, `{"status":401}`, `{"mode":"garbage"}`, `{"mode":"down"}`, `{"mode":"quota","count":1}`, `{"status":307}`} {
		f.peers[0].setFaults(t, faults)
		n++
		f.await(t, f.store(t, memories(fmt.Sprintf("refused-%d", n), 3)...)...)
	}
	f.peers[0].setFaults(t, "")
	if found := f.leaks(t.Context()); len(found) > 0 {
		t.Error(list(found))
	}
	if f.count(t, `select count(*) from river_job`) == 0 || len(f.workers[0].output()) == 0 {
		t.Error("C10: no jobs or no log to look at")
	}
}

// appliedOnce checks that two migrating processes have applied each migration once between them.
func appliedOnce(processes ...*process) error {
	var names []string
	for _, p := range processes {
		for line := range strings.Lines(string(p.output())) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "applied "); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	if len(names) == 0 || len(slices.Compact(slices.Clone(names))) != len(names) {
		return fmt.Errorf("applied %q, want each migration once", names)
	}
	return nil
}
