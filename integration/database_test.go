package integration

import (
	"context"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/localpg"
	"quorumbox/internal/pgtest"
)

// The database server crashes twice under load. Writers try again; nothing that was committed is lost, and the worker goes on by itself.
func TestDatabaseCrash(t *testing.T) {
	t.Parallel()
	pgtest.URL(t) // skips where there is no server
	server, err := localpg.Start(t.Context(), localpg.Options{Durability: localpg.NoSync})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	url := server.URL("postgres")
	if err := migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}

	f := newFleet(t, setup{url: url})
	w := f.worker(t, "")
	l := startLoad(t, 3, f.inserts)
	for range 2 {
		l.reach(t, 150)
		pid := server.Pid()
		if err := server.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if server.Pid() == pid {
			t.Fatal("C10: the server did not crash")
		}
		l.reach(t, 100)
	}
	l.stop(t)
	f.converge(t, insertsOnly)

	if l.failed.Load() == 0 {
		t.Error("C10: no writer noticed the crashes")
	}
	if w.hasEnded() {
		t.Errorf("the worker ended: %s", w.cmd.ProcessState)
	}
	if got, want := f.count(t, `select count(*) from memories`), int(l.committed.Load()); got != want {
		t.Errorf("the database has %d memories, the writers committed %d", got, want)
	}
}

// Every connection of the worker and the writers is ended by the server, again and again.
func TestConnectionsTerminated(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	w := f.worker(t, "")
	l := startLoad(t, 3, f.inserts)
	ended := 0
	for range 5 {
		l.reach(t, 60)
		ended += f.count(t, `
			select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
	}
	l.stop(t)
	f.converge(t, insertsOnly)
	if ended < 10 {
		t.Errorf("C10: only %d connections were ended", ended)
	}
	if w.hasEnded() {
		t.Errorf("the worker ended: %s", w.cmd.ProcessState)
	}
	if got, want := f.count(t, `select count(*) from memories`), int(l.committed.Load()); got != want {
		t.Errorf("the database has %d memories, the writers committed %d", got, want)
	}
}

func TestRunRefusesPendingMigrations(t *testing.T) {
	t.Parallel()
	url := "DATABASE_URL=" + pgtest.EmptyURL(t)
	dir := t.ArtifactDir()
	run := launch(t, "run", dir, []string{url}, "run")
	run.wait(t, settleTime)
	run.wantExit(t, 1)
	if out := string(run.output()); !strings.Contains(out, "`worker migrate up`") {
		t.Errorf("got %q, want the command to run", out)
	}
}

func TestMigrateTwiceAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	dir := t.ArtifactDir()
	one := launch(t, "migrate-1", dir, []string{"DATABASE_URL=" + url}, "migrate", "up")
	two := launch(t, "migrate-2", dir, []string{"DATABASE_URL=" + url}, "migrate", "up")
	for _, p := range []*process{one, two} {
		p.wait(t, settleTime)
		p.wantExit(t, 0)
	}
	if err := appliedOnce(one, two); err != nil {
		t.Error(err)
	}

	f := newFleet(t, setup{url: url})
	f.worker(t, "")
	wantMet(t, f.await(t, f.store(t, memories("row", 3)...)...), 3)
	f.converge(t, insertsOnly)
}
