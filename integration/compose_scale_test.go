package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scalings add workers and take them away.
func (f *composedFleet) scalings() []composeFault {
	c := f.composition
	return []composeFault{
		{
			name: "scaled from two workers to four",
			inject: func(t *testing.T) string {
				t.Helper()
				f.scale(t, 4)
				f.allWork(t, 4)
				return "4 workers take jobs"
			},
			heal: func(*testing.T) {},
		},
		{
			name: "scaled from four workers to one",
			inject: func(t *testing.T) string {
				t.Helper()
				c.keepLogs(t)
				f.scale(t, 1)
				return fmt.Sprintf("%d container is left", len(c.containers(t, "worker")))
			},
			heal: func(t *testing.T) { t.Helper(); f.scale(t, 2) },
		},
	}
}

// upgrade builds the image once more under another name and with another version, and replaces the workers by it, one by one.
func (f *composedFleet) upgrade() []composeFault {
	c := f.composition
	next := composition{image: "quorumbox:test-next"}
	return []composeFault{{
		name: "a new version, worker by worker",
		inject: func(t *testing.T) string {
			t.Helper()
			old := c.runningWorkers(t)
			wantVersion(t, c, "test", old...)
			c.env = append(slices.Clone(c.env), "QUORUMBOX_IMAGE="+next.image, "QUORUMBOX_VERSION=test-next")
			c.composeWithin(t, buildTimeout, "build", "worker")
			for _, id := range old {
				c.gone = append(c.gone, c.logsOf(t, id)...)
				c.docker(t, "stop", id)
				c.wantState(t, id, "exited", 0)
				c.docker(t, "rm", id)
				f.load.reach(t, duringFault/2)
				f.scale(t, len(old))
			}
			running := c.runningWorkers(t)
			if slices.ContainsFunc(running, func(id string) bool { return slices.Contains(old, id) }) {
				t.Errorf("C10: of the old workers some run: %v, %v", old, running)
			}
			wantVersion(t, c, "test-next", running...)
			f.allWork(t, len(old))
			return fmt.Sprintf("%d workers say test-next", len(running))
		},
		heal: func(*testing.T) {},
	}}
}

// scale starts or stops workers, and leaves those that stay as they are.
func (f *composedFleet) scale(t *testing.T, workers int) {
	t.Helper()
	f.composition.composeWithin(t, startTimeout, "up", "--detach", "--no-deps", "--no-recreate", "--scale", "worker="+strconv.Itoa(workers), "worker")
	f.wantWorkers(t, workers)
}

// wantWorkers waits until so many workers run, and each is ready.
func (f *composedFleet) wantWorkers(t *testing.T, n int) {
	t.Helper()
	c := f.composition
	untilWithin(t, startTimeout, fmt.Sprintf("%d workers are ready", n), func() []string {
		running := c.runningWorkers(t)
		left := holds(len(running) == n, fmt.Sprintf("%d run", len(running)))
		for _, id := range running {
			_, err := c.run(t.Context(), "exec", id, "/usr/local/bin/worker", "healthcheck")
			left = append(left, problem(err)...)
		}
		return left
	})
}

// allWork waits until each worker that runs, so many, has taken a job since now.
func (f *composedFleet) allWork(t *testing.T, n int) {
	t.Helper()
	since := time.Now() // on the machine of the database
	clients := f.riverClients()
	if len(clients) != n {
		t.Fatalf("C10: %d workers name their clients, want %d", len(clients), n)
	}
	untilWithin(t, startTimeout, "every worker has taken a job", func() []string {
		idle, err := f.strings(t.Context(), `
			select c || ' has not' from unnest($1::text[]) c
			where not exists (select from river_job where attempted_at > $2 and attempted_by[cardinality(attempted_by)] = c)`, clients, since)
		return slices.Concat(problem(err), idle)
	})
}

// wantState checks how a container is, and says so.
func (c *composition) wantState(t *testing.T, id, status string, exitCode int) string {
	t.Helper()
	got := c.inspectThese(t, id)[0].State
	if got.Status != status || got.ExitCode != exitCode {
		t.Fatalf("C10: the container is %s with exit code %d, want %s and %d", got.Status, got.ExitCode, status, exitCode)
	}
	if status == "exited" {
		return fmt.Sprintf("exit code %d", exitCode)
	}
	return status
}

// keepLogs keeps the logs of workers that are to be removed.
func (c *composition) keepLogs(t *testing.T) {
	t.Helper()
	for _, id := range c.containers(t, "worker") {
		c.gone = append(c.gone, c.logsOf(t, id)...)
	}
}

// wantVersion checks what containers say of themselves.
func wantVersion(t *testing.T, c *composition, version string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if got := c.docker(t, "exec", id, "/usr/local/bin/worker", "version"); !strings.HasPrefix(got, "quorumbox "+version+",") {
			t.Errorf("C10: a worker says that it is %q, want version %s", got, version)
		}
	}
}
