//go:build unix

package localpg_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/localpg"
)

// start starts a server that is stopped when the test ends.
func start(t *testing.T, opts localpg.Options) *localpg.Server {
	t.Helper()
	opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := localpg.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return server
}

func connect(t *testing.T, server *localpg.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // may be broken by then
	return conn
}

func exec(t *testing.T, server *localpg.Server, sql string) {
	t.Helper()
	if _, err := connect(t, server).Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query(t *testing.T, server *localpg.Server, sql string) string {
	t.Helper()
	var got string
	if err := connect(t, server).QueryRow(t.Context(), sql).Scan(&got); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

// waitGone polls until the process is gone.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		select {
		case <-ctx.Done():
			t.Fatalf("process %d is still there", pid)
		case <-tick.C:
		}
	}
}

func TestServerLivesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	server := start(t, localpg.Options{})

	pid := server.Pid()
	if err := syscall.Kill(pid, 0); pid == 0 || err != nil {
		t.Errorf("got pid %d (%v), want a process", pid, err)
	}
	if got, want := query(t, server, "show server_version"), server.Version(); !strings.HasPrefix(got, want) {
		t.Errorf("got version %q from the server, want %q", got, want)
	}
	info, err := os.Stat(server.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("got mode %o of the folder, want 700", got)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 {
		t.Errorf("folder and server belong to root, want an unprivileged user")
	}

	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitGone(t, pid)
	if got := server.Pid(); got != 0 {
		t.Errorf("got pid %d after Stop, want 0", got)
	}
	if _, err := os.Stat(server.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for the folder after Stop, want that it does not exist", err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if err := server.Restart(t.Context()); !errors.Is(err, localpg.ErrStopped) {
		t.Errorf("got %v from Restart after Stop, want ErrStopped", err)
	}
	if err := server.Crash(t.Context()); !errors.Is(err, localpg.ErrStopped) {
		t.Errorf("got %v from Crash after Stop, want ErrStopped", err)
	}
}

func TestDefaultsAndSettings(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		durability localpg.Durability
		want       map[string]string
	}{
		"durable": {localpg.Durable, map[string]string{
			"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_connections": "200",
			"max_wal_size": "4GB", "checkpoint_timeout": "15min", "listen_addresses": "127.0.0.1", "work_mem": "5MB",
			"timezone": "UTC", "application_name": `it's a \ "test"`, "server_encoding": "UTF8",
		}},
		"no sync": {localpg.NoSync, map[string]string{
			"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off", "work_mem": "5MB",
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, localpg.Options{Durability: test.durability, Settings: map[string]string{
				"Work_Mem": "5MB", "application_name": `it's a \ "test"`,
			}})
			for setting, want := range test.want {
				if got := query(t, server, "show "+setting); got != want {
					t.Errorf("got %s = %q, want %q", setting, got, want)
				}
			}
		})
	}
}

func TestCrashKeepsCommitsAndRestartGoesOn(t *testing.T) {
	t.Parallel()
	for name, durability := range map[string]localpg.Durability{"durable": localpg.Durable, "no sync": localpg.NoSync} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, localpg.Options{Durability: durability})
			url := server.URL("postgres")
			exec(t, server, "create table kept (n int); insert into kept values (42)")
			open := connect(t, server)

			if err := server.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := server.Pid(); got != 0 {
				t.Errorf("got pid %d after Crash, want 0", got)
			}
			if err := open.Ping(t.Context()); err == nil {
				t.Error("an open connection outlived the crash")
			}
			if _, err := pgx.Connect(t.Context(), url); err == nil {
				t.Error("a crashed server takes connections")
			}
			if err := server.Crash(t.Context()); err != nil {
				t.Errorf("Crash of a server that is down: %v", err)
			}

			for range 2 { // the first starts the crashed server, the second restarts a running one
				before := server.Pid()
				if err := server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := server.Pid(); got == 0 || got == before {
					t.Errorf("got pid %d after Restart, want a new process (was %d)", got, before)
				}
				if got := server.URL("postgres"); got != url {
					t.Errorf("got URL %s after Restart, want %s", got, url)
				}
				if got := query(t, server, "select n::text from kept"); got != "42" {
					t.Errorf("got %s after Restart, want 42", got)
				}
			}
		})
	}
}

func TestStopWithoutTimeKillsAndCleansUp(t *testing.T) {
	t.Parallel()
	server := start(t, localpg.Options{Durability: localpg.NoSync})
	pid := server.Pid()
	// A stopped process cannot act on a request to shut down.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no time")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)

	if err := server.Stop(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
	waitGone(t, pid)
	if _, err := os.Stat(server.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for the folder after Stop, want that it does not exist", err)
	}
}

// reachable makes a folder that also the unprivileged user of a server can reach; t.TempDir is closed to it.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "localpg-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	return filepath.Join(dir, "data folder") // with a space
}

func TestKeptFolder(t *testing.T) {
	t.Parallel()
	dir := reachable(t)
	first := start(t, localpg.Options{Dir: dir, Durability: localpg.NoSync})
	exec(t, first, "create table kept as select 'yes' as it")

	_, err := localpg.Start(t.Context(), localpg.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v for a folder in use, want a refusal", err)
	}
	if got := query(t, first, "select it from kept"); got != "yes" {
		t.Errorf("got %q after the refusal, want yes", got)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	second := start(t, localpg.Options{Dir: dir, Durability: localpg.NoSync})
	if got := query(t, second, "select it from kept"); got != "yes" {
		t.Errorf("got %q in the second run, want yes", got)
	}
}

func TestUnfinishedDataIsMadeAgain(t *testing.T) {
	t.Parallel()
	dir := reachable(t)
	first := start(t, localpg.Options{Dir: dir, Durability: localpg.NoSync})
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// As after an initdb that was killed.
	if err := os.Truncate(filepath.Join(dir, "data", "postgresql.conf"), 100); err != nil {
		t.Fatal(err)
	}
	start(t, localpg.Options{Dir: dir, Durability: localpg.NoSync})
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // nothing was sent
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("got address %T", listener.Addr())
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		opts localpg.Options
		want string
	}{
		"port in use":          {localpg.Options{Port: address.Port, Durability: localpg.NoSync}, "port is in use"},
		"port out of range":    {localpg.Options{Port: 65536}, "port 65536 is not in 0..65535"},
		"unknown durability":   {localpg.Options{Durability: 7}, "neither Durable nor NoSync"},
		"folder of others":     {localpg.Options{Dir: foreign}, "is not empty and was not made by quorumbox"},
		"port as a setting":    {localpg.Options{Settings: map[string]string{"PORT": "1"}}, "use the option Port"},
		"name of a setting":    {localpg.Options{Settings: map[string]string{"a = 1\nb": "1"}}, "is no name of a server setting"},
		"value of a setting":   {localpg.Options{Settings: map[string]string{"work_mem": "1\nfsync = off"}}, "line break"},
		"unknown setting":      {localpg.Options{Durability: localpg.NoSync, Settings: map[string]string{"no_such": "1"}}, `unrecognized configuration parameter "no_such"`},
		"parent is no folder":  {localpg.Options{Dir: filepath.Join(foreign, "thesis.txt", "x")}, "not a directory"},
		"value out of a range": {localpg.Options{Durability: localpg.NoSync, Settings: map[string]string{"max_connections": "-1"}}, "max_connections"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := localpg.Start(t.Context(), test.opts)
			if err == nil {
				_ = server.Stop(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one that holds %q", err, test.want)
			}
		})
	}
	t.Run("context over", func(t *testing.T) {
		t.Parallel()
		cause := errors.New("no time")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := localpg.Start(ctx, localpg.Options{}); !errors.Is(err, cause) {
			t.Errorf("got error %v, want the cause", err)
		}
	})
}
