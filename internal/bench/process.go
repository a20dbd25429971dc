//go:build unix

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// stopPatience is what a child gets after SIGTERM before it is killed.
	stopPatience = 20 * time.Second

	// startPatience bounds the wait for a child's first line.
	startPatience = 15 * time.Second

	// logTail is how much of a child's log an error quotes, in bytes.
	logTail = 800
)

// process is a child: another run of this program. One goroutine starts it and waits for it; that goroutine ends with the child.
type process struct {
	name    string
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed when the child is gone
	err     error         // why it ended; read it after exited is closed
}

// spawn describes a child.
type spawn struct {
	program string
	args    []string
	env     []string  // added to this process's own
	log     string    // file for its standard error
	stdout  io.Writer // nil discards
}

// start starts the child in a process group of its own, so that a Ctrl-C at the terminal reaches this process only, which stops its
// children in order. A child does not outlive this process, however that dies (on Linux): the thread that starts a child has
// to live as long as the child does for that (prctl(2), PR_SET_PDEATHSIG).
func (s spawn) start(name string) (*process, error) {
	log, err := os.Create(s.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()                         // the child has its own handle
	cmd := exec.Command(s.program, s.args...) //nolint:gosec,noctx // this program itself; stop ends it, in order
	cmd.Env = append(ownEnvironment(), s.env...)
	cmd.Stdout, cmd.Stderr = s.stdout, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	p := &process{name: name, cmd: cmd, logPath: s.log, exited: make(chan struct{})}
	started := make(chan error, 1) // one send; never blocks
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// ownEnvironment is the environment without what would change a child's settings.
func ownEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "QUORUMBOX_") && !strings.HasPrefix(v, "DATABASE_URL=") {
			env = append(env, v)
		}
	}
	return env
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive returns an error with the end of the child's log if the child has ended.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended by itself (%w); its log ends: %s", p.name, exitCause(p.err), p.logEnd())
	default:
		return nil
	}
}

func exitCause(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (p *process) logEnd() string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	text = text[max(0, len(text)-logTail):]
	if len(text) == 0 {
		return "(nothing)"
	}
	return strings.TrimSpace(string(text))
}

// stop asks the child to end and kills it if it has not done so in time. It returns when the child is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // lost on one that has ended
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// startWithLine starts the child and returns the first line that it writes.
func (s spawn) startWithLine(ctx context.Context, name string) (*process, string, error) {
	reader, writer := io.Pipe()
	s.stdout = writer
	p, err := s.start(name)
	if err != nil {
		return nil, "", err
	}
	lines := make(chan string, 1) // one send, by the goroutine below, which ends with the child
	go func() {
		scanner := bufio.NewScanner(reader)
		if scanner.Scan() {
			lines <- scanner.Text()
		}
		_, _ = io.Copy(io.Discard, reader) // whatever else it says
	}()
	go func() {
		<-p.exited
		_ = writer.Close()
	}()
	timer := time.NewTimer(startPatience)
	defer timer.Stop()
	var cause error
	select {
	case line := <-lines:
		return p, line, nil
	case <-p.exited:
		return nil, "", p.alive()
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-timer.C:
		cause = fmt.Errorf("no line from %s for %s", name, startPatience)
	}
	p.stop()
	return nil, "", fmt.Errorf("start %s: %w", name, cause)
}
