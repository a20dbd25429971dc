//go:build unix

package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/child"
)

// pingTimeout bounds one try to reach a starting server; a busy machine may need seconds to fork a backend.
const pingTimeout = 5 * time.Second

// errPortTaken says that something else listens on the chosen port.
var errPortTaken = errors.New("port is in use")

// prepare finds the binaries and makes the data folder ready to start from.
func (s *Server) prepare(ctx context.Context, opts Options) error {
	major, err := s.folder.dataMajor()
	if err != nil {
		return err
	}
	s.bin, err = findBinaries(ctx, s.account, major, s.logger)
	if err != nil {
		return err
	}
	if major != 0 {
		s.folder.waitForLastServer(ctx)
		s.password, err = s.folder.readPassword()
		return err
	}
	s.password = rand.Text()
	if err := s.folder.writePassword(s.password); err != nil {
		return err
	}
	return s.initdb(ctx, opts.Durability)
}

// initdb creates the data folder. An existing but unfinished one cannot be met: Start removes what it began.
func (s *Server) initdb(ctx context.Context, durability Durability) error {
	// The locale C makes order and messages the same on every machine; text is compared by code point.
	args := []string{
		"--pgdata=" + s.folder.dataPath(), "--username=" + User, "--pwfile=" + s.folder.passwordPath(),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
	}
	if s.folder.temporary || durability == NoSync {
		args = append(args, "--no-sync")
	}
	cmd := s.command(ctx, "initdb", args...)
	cmd.WaitDelay = killGrace
	out, err := cmd.CombinedOutput()
	if err != nil {
		cause := errors.Join(fmt.Errorf("initdb %s: %w: %s", s.bin.dir, err, lastLines(string(out))), context.Cause(ctx))
		return errors.Join(cause, s.folder.removeData())
	}
	if err := s.folder.includeSettings(); err != nil {
		return errors.Join(err, s.folder.removeData())
	}
	return nil
}

// launchOnSomePort launches on the wanted port, or on free ones until nobody else was faster.
func (s *Server) launchOnSomePort(ctx context.Context, wanted int) error {
	for range portTries {
		if wanted == 0 {
			port, err := child.FreePort(ctx)
			if err != nil {
				return err
			}
			s.port = port
		}
		err := s.launch(ctx)
		if wanted == 0 && errors.Is(err, errPortTaken) {
			continue
		}
		return err
	}
	return fmt.Errorf("%d free ports in turn were taken by somebody else: %w", portTries, errPortTaken)
}

// launch starts the server process and waits until it answers. On an error no process is left.
func (s *Server) launch(ctx context.Context) error {
	begin := time.Now()
	if err := s.folder.writeSettings(s.port, s.settings); err != nil {
		return err
	}
	log, offset, err := s.folder.openLog()
	if err != nil {
		return err
	}
	defer log.Close()

	// The server must not end with ctx: it lives until Stop.
	cmd := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.folder.dataPath())
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, s.folder.deathSignal())
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	s.proc.Store(p)

	ctx, cancel := context.WithTimeoutCause(ctx, StartTimeout,
		fmt.Errorf("server gave no answer for %s: %w", StartTimeout, context.DeadlineExceeded))
	defer cancel()
	if err := s.awaitReady(ctx, p); err != nil {
		kill(p)
		tail := s.folder.logSince(offset)
		if strings.Contains(tail, "Address already in use") {
			return fmt.Errorf("port %d: %w", s.port, errPortTaken)
		}
		return fmt.Errorf("%w; its log ends: %s", err, lastLines(tail))
	}
	s.logger.InfoContext(ctx, "local postgres started", slog.String("version", s.bin.version), slog.Int("port", s.port),
		slog.Int("pid", p.Pid()), slog.String("dir", s.folder.path), slog.Duration("elapsed", time.Since(begin)))
	return nil
}

// awaitReady polls until the server answers a query, dies, or ctx ends.
func (s *Server) awaitReady(ctx context.Context, p *child.Process) error {
	tick := time.NewTicker(20 * time.Millisecond) // a new server is up in 50 to 200 ms
	defer tick.Stop()
	for {
		err := s.pingWhileAlive(ctx, p)
		if err == nil {
			return nil
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("server ended while starting: %w", p.Err())
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w (last answer: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// kill ends the server with everything it started, and waits until it is gone.
func kill(p *child.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), killGrace)
	defer cancel()
	p.Stop(ctx, syscall.SIGQUIT) // it takes its own children with it; after a SIGKILL they notice, and end
}

// pingWhileAlive pings, and gives up when the process ends: if its port is in use, somebody else may let us wait for ever.
func (s *Server) pingWhileAlive(ctx context.Context, p *child.Process) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	answer := make(chan error, 1) // one send; never blocks
	go func() { answer <- s.ping(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-p.Exited():
		cancel()
		return <-answer
	}
}

func (s *Server) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// command prepares one of the server's programs: as the server's user, in the server's folder (the caller's may be closed
// to that user), with nothing of the caller's environment that could redirect it or that is none of its business, and in a
// process group of its own, so that a Ctrl-C at the terminal reaches the caller only, which then decides.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin.path(program), args...) //nolint:gosec // a program of the found installation
	cmd.Dir = s.folder.path
	cmd.Env = programEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.account.credential()}
	return cmd
}

func programEnv() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// lastLines is the end of a program's output, on one line, short enough for an error.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	short := strings.Join(lines, " | ")
	if short == "" {
		return "(nothing)"
	}
	return short
}
