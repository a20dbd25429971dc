//go:build unix

// Package localpg runs a disposable Postgres server as a child process: for the demo, the bench and the tests.
//
// It uses the binaries that are installed on the machine (14 or newer) and downloads some where there are none. Postgres
// refuses to run as root, so a caller that is root gets a server that runs as the user postgres or, where that user does not
// exist, nobody. The server listens on loopback only, asks for a random password, and ends with its parent, however that
// one dies. It runs on Unix systems.
package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"quorumbox/internal/child"
)

const (
	// StartTimeout bounds how long Start and Restart wait for the server to answer. It covers the recovery after a crash:
	// replaying a full max_wal_size takes tens of seconds on a small machine.
	StartTimeout = 2 * time.Minute

	// User is the superuser that [Server.URL] names.
	User = "postgres"

	// killGrace is what a server gets after each harder signal before the next one.
	killGrace = 5 * time.Second

	// portTries bounds how often another free port is tried because somebody took the chosen one first.
	portTries = 8
)

// ErrStopped is returned by methods of a server whose Stop was called: its data may be gone.
var ErrStopped = errors.New("localpg: server is stopped for good")

// Durability says what the server's commits survive.
type Durability int

const (
	// Durable commits survive a power cut, as in production: fsync, synchronous_commit and full_page_writes are on.
	Durable Durability = iota
	// NoSync commits survive a crash of the server ([Server.Crash]) but not one of the machine. For tests only.
	NoSync
)

// Options say where and how the server runs. The zero value is a temporary, durable server on a free port.
type Options struct {
	// Dir keeps the data between runs. It is created if missing, must be empty or a folder that an earlier server made, and
	// becomes private to the user that runs the server. Empty means a new temporary folder, which Stop removes; that of a
	// NoSync server is in memory where a file system for that has room.
	Dir string

	// Settings are server settings by name ("work_mem": "8MB"); they win over the defaults of this package, and what
	// "alter system" stores in the server wins over them. The port is set by Port alone.
	Settings map[string]string

	// Logger hears of starts and stops. The server's own log goes to the file postgres.log in Dir. Nil discards.
	Logger *slog.Logger

	// Durability defaults to Durable.
	Durability Durability

	// Port on 127.0.0.1. Zero picks a free one outside the range from which the system takes ports for outgoing connections,
	// so that nothing takes it while the server is down.
	Port int
}

// Server is a Postgres server that this process started. Its methods are safe for concurrent use; those that change its
// state (Stop, Crash, Restart) wait for each other.
type Server struct {
	bin      binaries
	account  account
	folder   *folder
	settings map[string]string
	logger   *slog.Logger
	password string
	port     int

	turn    chan struct{} // holds a token while nobody changes the state; capacity 1
	stopped bool          // owned by the holder of the token
	proc    atomic.Pointer[child.Process]
}

// Start creates the data folder if it is new, starts the server and returns when it accepts connections. It returns an error
// that says what was looked for where no binaries can be had, and leaves nothing behind on any error. The server does not
// end with ctx; call Stop.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("localpg: %w", context.Cause(ctx))
	}
	settings, err := opts.merged()
	if err != nil {
		return nil, fmt.Errorf("localpg: %w", err)
	}
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	acc, err := chooseAccount()
	if err != nil {
		return nil, fmt.Errorf("localpg: %w", err)
	}
	bases := temporaryBases(opts.Durability)
	if opts.Dir == "" {
		// The memory also where it is not used now: what killed owners left may be what fills it.
		sweepTemporary(ctx, append([]string{sharedMemory}, bases...), logger)
	}
	fold, err := openFolder(opts.Dir, acc, bases)
	if err != nil {
		return nil, fmt.Errorf("localpg: %w", err)
	}
	s := &Server{
		account: acc, folder: fold, settings: settings, logger: logger, port: opts.Port,
		turn: make(chan struct{}, 1),
	}
	s.turn <- struct{}{}
	if err := s.prepare(ctx, opts); err != nil {
		return nil, fmt.Errorf("localpg: %w", errors.Join(err, fold.close()))
	}
	if err := s.launchOnSomePort(ctx, opts.Port); err != nil {
		return nil, fmt.Errorf("localpg: %w", errors.Join(err, fold.close()))
	}
	return s, nil
}

// URL is the connection string of a database of this server, for [User]. It holds the password: not for logs.
// It stays the same over Crash and Restart.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(User, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Pid is the process id of the server, 0 while it is down.
func (s *Server) Pid() int {
	p := s.proc.Load()
	if p == nil || p.Err() != nil {
		return 0
	}
	return p.Pid()
}

// Version is what the server's binary says, such as "17.5".
func (s *Server) Version() string { return s.bin.version }

// Dir is the folder that holds the data, the password and postgres.log.
func (s *Server) Dir() string { return s.folder.path }

// Crash ends the server at once as "pg_ctl stop -m immediate" does: connections break, nothing is flushed, and the next
// Restart goes through recovery. It returns when the server is gone, and does nothing to one that is down.
func (s *Server) Crash(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("localpg: crash: %w", err)
	}
	defer s.give()

	if err := s.end(ctx, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("localpg: crash: %w", err)
	}
	return nil
}

// Restart starts a crashed server again on the same port and data, or stops a running one first (fast, with a checkpoint).
// It returns when the server accepts connections. An error leaves the server down; Restart may be tried again.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("localpg: restart: %w", err)
	}
	defer s.give()

	if err := s.end(ctx, syscall.SIGINT); err != nil {
		return fmt.Errorf("localpg: restart: %w", err)
	}
	if err := s.launch(ctx); err != nil {
		return fmt.Errorf("localpg: restart: %w", err)
	}
	return nil
}

// Stop shuts the server down (fast: open transactions are rolled back, then a checkpoint) and removes a temporary folder.
// When ctx ends before the server is down, Stop kills it, removes the folder all the same, and returns the cause. When ctx
// ends while another change of the server (a Restart) is still under way, Stop does nothing and returns the cause. Calling
// it again after it has stopped the server does nothing.
func (s *Server) Stop(ctx context.Context) error {
	err := s.take(ctx)
	if errors.Is(err, ErrStopped) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("localpg: stop: %w", err)
	}
	defer s.give()

	s.stopped = true
	// Nobody reads a temporary folder again, so its checkpoint is not worth the wait.
	signal := syscall.SIGINT
	if s.folder.temporary {
		signal = syscall.SIGQUIT
	}
	err = errors.Join(s.end(ctx, signal), s.folder.close())
	if err != nil {
		return fmt.Errorf("localpg: stop: %w", err)
	}
	s.logger.InfoContext(ctx, "local postgres stopped")
	return nil
}

// take waits for the right to change the server's state.
func (s *Server) take(ctx context.Context) error {
	select {
	case <-s.turn: // even if ctx is over: Stop has to clean up all the same
	default:
		select {
		case <-s.turn:
		case <-ctx.Done():
			return fmt.Errorf("wait for another change of the server: %w", context.Cause(ctx))
		}
	}
	if s.stopped {
		s.give()
		return ErrStopped
	}
	return nil
}

func (s *Server) give() { s.turn <- struct{}{} }

// end sends the signal and waits until the server is gone. When ctx ends first it uses harder signals, so that the server is
// gone in any case, and returns the cause.
func (s *Server) end(ctx context.Context, signal syscall.Signal) error {
	p := s.proc.Load()
	if p == nil || p.Err() != nil {
		return nil
	}
	p.Signal(signal)
	select {
	case <-p.Exited():
		return nil
	case <-ctx.Done():
	}
	for _, harder := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
		p.Signal(harder)
		timer := time.NewTimer(killGrace)
		select {
		case <-p.Exited():
			timer.Stop()
			return fmt.Errorf("server killed because it had not stopped: %w", context.Cause(ctx))
		case <-timer.C:
		}
	}
	return fmt.Errorf("server %d does not die: %w", p.Pid(), context.Cause(ctx))
}
