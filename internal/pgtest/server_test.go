package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/migrations"
)

// recorder is a test that notes how it is judged instead of ending.
type recorder struct {
	testing.TB

	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { r.note("error", format, args) }
func (r *recorder) Fatalf(format string, args ...any) { r.note("fatal", format, args) }
func (r *recorder) Skipf(format string, args ...any)  { r.note("skip", format, args) }

func (r *recorder) note(how, format string, args []any) {
	r.said = append(r.said, how+" "+fmt.Sprintf(format, args...))
}

func TestRefuse(t *testing.T) {
	noServer := fmt.Errorf("%w: no binaries", errNoServer)
	tests := map[string]struct {
		ci   string
		err  error
		want string
	}{
		"no server":             {"", noServer, "skip SKIPPED, NOT TESTED: no Postgres server: no binaries\nInstall Postgres"},
		"no server in CI":       {"true", noServer, "fatal pgtest: no Postgres server: no binaries"},
		"broken migrations":     {"", errors.New("syntax error"), "fatal pgtest: syntax error"},
		"TestMain without Main": {"", errNoMain, "fatal pgtest: call pgtest.Main from TestMain"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CI", test.ci)
			r := &recorder{TB: t}
			refuse(r, test.err)
			if len(r.said) == 0 || !strings.HasPrefix(r.said[0], test.want) {
				t.Errorf("got %q, want %q first", r.said, test.want)
			}
		})
	}
}

func TestStartNeedsMain(t *testing.T) {
	t.Parallel()
	var s server
	if err := s.start(t.Context()); !errors.Is(err, errNoMain) {
		t.Errorf("got error %v, want errNoMain", err)
	}
}

func TestUnreleasedConnectionIsReported(t *testing.T) {
	t.Parallel()
	pool := New(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()

	r := &recorder{TB: t}
	closePool(r, pool, 10*time.Millisecond)
	if len(r.said) != 1 || !strings.HasPrefix(r.said[0], "error pgtest: 1 connections of the pool were not released") {
		t.Errorf("got %q, want an error about one connection", r.said)
	}
}

// A server that outlives the test binary: nothing may stay there.
func TestGivenServer(t *testing.T) {
	t.Setenv(ServerVariable, EmptyURL(t))
	conn, err := pgx.Connect(t.Context(), shared.adminURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // only read

	exists := func(name string) bool {
		t.Helper()
		var got bool
		err := conn.QueryRow(t.Context(), `select exists (select from pg_database where datname = $1)`, name).Scan(&got)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	abandoned := fmt.Sprintf("%s%x_db_%d", databasePrefix, time.Now().Add(-abandonedAge-time.Hour).Unix(), time.Now().UnixNano())
	if _, err := conn.Exec(t.Context(), `create database `+abandoned); err != nil {
		t.Fatal(err)
	}

	var s server
	prepared := 0
	s.configure([]Option{WithTemplate("given", func(context.Context, string) error {
		prepared++
		return nil
	})})
	for range 2 {
		if err := s.start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if prepared != 1 || s.local != nil {
		t.Errorf("got %d preparations and own server %v, want 1 and none", prepared, s.local)
	}
	if exists(abandoned) {
		t.Error("the database of a killed test binary is still there")
	}
	name, err := s.create(t.Context(), fromTemplate)
	if err != nil || !exists(name) {
		t.Fatalf("create: %v; exists: %v", err, exists(name))
	}
	if err := s.drop(t.Context(), name); err != nil || exists(name) {
		t.Errorf("drop: %v; exists: %v", err, exists(name))
	}
	if err := s.stop(); err != nil || exists(s.template) {
		t.Errorf("stop: %v; template exists: %v", err, exists(s.template))
	}
}

func TestStartReportsBrokenTemplate(t *testing.T) {
	t.Setenv(ServerVariable, EmptyURL(t))
	broken := errors.New("syntax error")
	var s server
	s.configure([]Option{WithTemplate("broken", func(context.Context, string) error { return broken })})
	if err := s.start(t.Context()); !errors.Is(err, broken) || errors.Is(err, errNoServer) {
		t.Errorf("got error %v, want the one of the template", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestMigrated(t *testing.T) {
	t.Setenv(ServerVariable, EmptyURL(t))
	var s server
	s.configure([]Option{Migrated()})
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Check(t.Context(), s.url(s.template)); err != nil {
		t.Errorf("the template: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestStartReportsUnreachableServer(t *testing.T) {
	t.Setenv(ServerVariable, "postgres://postgres@127.0.0.1:1/postgres")
	var s server
	s.configure(nil)
	if err := s.start(t.Context()); err == nil || errors.Is(err, errNoServer) || !strings.Contains(err.Error(), ServerVariable) {
		t.Errorf("got error %v, want one that names %s", err, ServerVariable)
	}
}
