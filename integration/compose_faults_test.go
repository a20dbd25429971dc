package integration

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// duringFault is how many writes are committed, at least, while a fault lasts that lets writers write.
const duringFault = 40

// composeLease is above how long a worker holds a batch without renewing that: the default of quorum.ack_timeout, and 1.5 s.
const composeLease = 4 * time.Second

// composeFault is something that goes wrong with the containers while writers write.
type composeFault struct {
	name string
	// inject makes it happen, and returns what shows that it has (C10).
	inject func(t *testing.T) (seen string)
	// heal ends it.
	heal func(t *testing.T)
	// unwritable: no writer can commit while it lasts.
	unwritable bool
}

// faultRow is a line of the table of what was done and found.
type faultRow struct {
	name, seen string
	took       time.Duration
	writes     int64
	wrong      int
}

// One project lives through everything that a machine does to containers, one after the other and under load: workers, peers and the database are
// killed, stopped, paused, cut off and restarted, workers come and go, and a new version takes over. After each, what must always hold is looked at in
// the tables and in every peer's own log; in the end every peer equals the writer.
//
// Not parallel: it builds images, which would disturb tests that measure.
func TestComposeFaults(t *testing.T) { //nolint:paralleltest // see above
	ports := map[string]string{}
	for _, name := range []string{"POSTGRES", "PEER_1", "PEER_2", "PEER_3"} {
		_, ports[name], _ = net.SplitHostPort(freeAddr(t))
	}
	begin := time.Now()
	c := startComposition(t, composition{files: []string{"integration/testdata/compose.faults.yml"}, ports: ports})
	f := c.asFleet(t)
	f.load = startLoad(t, 2, f.write)
	f.load.reach(t, duringFault)

	var rows []faultRow
	defer func() { t.Logf("after %s\n%s", time.Since(begin).Round(time.Second), faultTable(rows)) }()
	for _, fault := range slices.Concat(f.workerFaults(), f.peerFaults(), f.databaseFaults(), f.scalings(), f.upgrade()) {
		rows = append(rows, f.goThrough(t, fault))
	}
	f.load.stop(t)
	f.answering(t)
	settling := time.Now()
	f.convergeAfterZombies(t)
	if lost := f.lost(t.Context()); len(lost) > 0 {
		t.Errorf("%s", list(lost))
	}
	if f.load.failed.Load() == 0 {
		t.Error("C10: no writer noticed that the database was away")
	}
	c.wantQuietLogs(t, payloadCanary)
	rows = append(rows, faultRow{
		name: "all healed: peers equal the writer", seen: "C1 C2 C3 C4 C6 C7 C9", took: time.Since(settling), writes: f.load.committed.Load(),
	})
}

// goThrough injects a fault, lets writers write on, heals it, and checks what must hold at any time.
func (f *composedFleet) goThrough(t *testing.T, fault composeFault) faultRow {
	t.Helper()
	begin, before, failed := time.Now(), f.load.committed.Load(), f.load.failed.Load()
	row := faultRow{name: fault.name, seen: fault.inject(t)}
	if fault.unwritable {
		until(t, "a writer notices", func() []string { return holds(f.load.failed.Load() > failed, "none has") })
	} else {
		f.load.reach(t, duringFault)
	}
	row.writes = f.load.committed.Load() - before
	fault.heal(t)
	f.answering(t)
	f.load.reach(t, duringFault/2)
	wrong := f.wrongNow(t.Context())
	if len(wrong) > 0 {
		t.Errorf("%s: invariants do not hold:\n%s", fault.name, list(wrong))
	}
	row.took, row.wrong = time.Since(begin), len(wrong)
	t.Logf("%s: %s, %d writes, %s", row.name, row.seen, row.writes, row.took.Round(100*time.Millisecond))
	return row
}

func faultTable(rows []faultRow) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FAULT\tSEEN\tWRITES MEANWHILE\tSECONDS\tVIOLATIONS")
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%.1f\t%d\n", r.name, r.seen, r.writes, r.took.Seconds(), r.wrong)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// workerFaults are those of one of two workers.
func (f *composedFleet) workerFaults() []composeFault {
	c := f.composition
	var worker string
	start := func(t *testing.T) {
		t.Helper()
		c.docker(t, "start", worker)
		f.wantWorkers(t, 2)
	}
	return []composeFault{
		{
			name: "SIGKILL of a worker",
			inject: func(t *testing.T) string {
				t.Helper()
				worker = c.runningWorkers(t)[0]
				c.docker(t, "kill", "--signal", "KILL", worker)
				f.takenOver(t)
				return c.wantState(t, worker, "exited", 137)
			},
			heal: start,
		},
		{
			name: "a worker paused beyond its leases",
			inject: func(t *testing.T) string {
				t.Helper()
				c.docker(t, "pause", worker)
				f.pass(t, composeLease)
				f.takenOver(t)
				return c.wantState(t, worker, "paused", 0)
			},
			heal: func(t *testing.T) { t.Helper(); c.docker(t, "unpause", worker) },
		},
		{
			name: "a worker cut off from the database",
			inject: func(t *testing.T) string {
				t.Helper()
				c.docker(t, "network", "disconnect", c.project+"_database", worker)
				f.takenOver(t)
				until(t, "it is not ready", func() []string {
					_, err := c.run(t.Context(), "exec", worker, "/usr/local/bin/worker", "healthcheck")
					return holds(err != nil, "it says that it is")
				})
				return "not ready"
			},
			heal: func(t *testing.T) {
				t.Helper()
				c.docker(t, "network", "connect", c.project+"_database", worker)
				f.wantWorkers(t, 2)
			},
		},
	}
}

// peerFaults are those of one peer each.
func (f *composedFleet) peerFaults() []composeFault {
	c := f.composition
	id := func(t *testing.T, peer string) string {
		t.Helper()
		return c.containers(t, peer)[0]
	}
	return []composeFault{
		{
			name: "a peer stopped",
			inject: func(t *testing.T) string {
				t.Helper()
				c.compose(t, "stop", "peer-3")
				return f.lags(t, "peer-3")
			},
			heal: func(t *testing.T) { t.Helper(); c.compose(t, "start", "peer-3") },
		},
		{
			name: "a peer paused",
			inject: func(t *testing.T) string {
				t.Helper()
				c.docker(t, "pause", id(t, "peer-2"))
				return f.lags(t, "peer-2")
			},
			heal: func(t *testing.T) { t.Helper(); c.docker(t, "unpause", id(t, "peer-2")) },
		},
		{
			name: "a peer cut off from the network",
			inject: func(t *testing.T) string {
				t.Helper()
				c.docker(t, "network", "disconnect", c.project+"_peers", id(t, "peer-1"))
				return f.lags(t, "peer-1")
			},
			heal: func(t *testing.T) {
				t.Helper()
				c.docker(t, "network", "connect", "--alias", "peer-1", c.project+"_peers", id(t, "peer-1"))
			},
		},
		{
			name: "SIGKILL of a peer",
			inject: func(t *testing.T) string {
				t.Helper()
				c.docker(t, "kill", "--signal", "KILL", id(t, "peer-3"))
				c.wantState(t, id(t, "peer-3"), "exited", 137)
				return f.lags(t, "peer-3")
			},
			heal: func(t *testing.T) { t.Helper(); c.docker(t, "start", id(t, "peer-3")) },
		},
	}
}

// databaseFaults are those of the database server.
func (f *composedFleet) databaseFaults() []composeFault {
	c := f.composition
	stopped := func(t *testing.T) string {
		t.Helper()
		return c.containers(t, "postgres")[0]
	}
	return []composeFault{
		{
			name: "Postgres restarted",
			inject: func(t *testing.T) string {
				t.Helper()
				c.compose(t, "stop", "postgres")
				return c.wantState(t, stopped(t), "exited", 0)
			},
			heal:       func(t *testing.T) { t.Helper(); c.compose(t, "start", "postgres") },
			unwritable: true,
		},
		{
			name: "SIGKILL of Postgres",
			inject: func(t *testing.T) string {
				t.Helper()
				c.docker(t, "kill", "--signal", "KILL", stopped(t))
				return c.wantState(t, stopped(t), "exited", 137)
			},
			heal:       func(t *testing.T) { t.Helper(); c.docker(t, "start", stopped(t)) },
			unwritable: true,
		},
	}
}
