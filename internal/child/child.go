//go:build unix

// Package child runs programs that do not outlive this process, however it dies.
package child

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Process is a program that runs, or ran. One goroutine starts it and waits for it; that goroutine ends with the program.
// All methods are safe for concurrent use.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
	err    error         // why it ended; to be read after exited is closed
}

// Start starts the program, which gets the signal onParentDeath when this process dies. It runs in a process group of its own,
// so that a Ctrl-C at the terminal reaches this process only, which then decides. The caller sees to its end, with
// [Process.Stop] or [Process.Kill]; cmd belongs to the Process from here on. cmd.SysProcAttr may be set or nil.
//
// A thread is taken up as long as the program lives: on Linux the signal for the parent's death is in truth one for the
// death of the thread that started the child (prctl(2), PR_SET_PDEATHSIG). Elsewhere a shell watches; where there is none
// either, the program outlives a killed parent until somebody stops it.
func Start(cmd *exec.Cmd, onParentDeath syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	endWithParent(cmd, onParentDeath)
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1) // one send; never blocks
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		release := guardChild(cmd, onParentDeath)
		started <- nil
		p.err = cmd.Wait()
		release()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// StartWithLine is [Start] for a program that says on its standard output when it is ready. It returns the first line, without
// its end and of at most 64 KiB; the rest of the output is thrown away. cmd.Stdout must be nil.
//
// Where no line comes, the program still runs or has ended, and the error says why: the cause of ctx, which bounds the
// wait, or how the program ended. The Process is nil only if the program could not be started; the caller stops it otherwise.
func StartWithLine(ctx context.Context, cmd *exec.Cmd, onParentDeath syscall.Signal) (*Process, string, error) {
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	p, err := Start(cmd, onParentDeath)
	if err != nil {
		return nil, "", err
	}
	lines := make(chan string, 1) // one send at most, by the goroutine below, which closes it and ends with the program
	go func() {
		scanner := bufio.NewScanner(reader)
		if scanner.Scan() {
			lines <- scanner.Text()
		}
		close(lines)
		_, _ = io.Copy(io.Discard, reader) // whatever else it says
	}()
	go func() {
		<-p.exited
		_ = writer.Close() // never fails
	}()
	select {
	case line, ok := <-lines:
		if ok {
			return p, line, nil
		}
	case <-ctx.Done():
		return p, "", context.Cause(ctx)
	}
	// The output ended, or began with a line that is too long.
	select {
	case <-p.exited:
		return p, "", p.Err()
	case <-ctx.Done():
		return p, "", context.Cause(ctx)
	}
}

// Pid is the number of the process, also when it is gone.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Exited is closed when the process is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// errOK is how a program ended that found nothing wrong.
var errOK = errors.New("exit status 0")

// Err is nil while the process runs, and then says how it ended: an [exec.ExitError], or "exit status 0".
func (p *Process) Err() error {
	select {
	case <-p.exited:
	default:
		return nil
	}
	if p.err == nil {
		return errOK
	}
	return p.err
}

// Signal sends the signal. It is lost on a process that is gone, which is what its senders want.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process with SIGKILL, which it cannot prepare for, and returns when it is gone.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.exited
}

// Stop asks the process to end with the signal, kills it if it has not ended when ctx does, and returns when it is gone.
func (p *Process) Stop(ctx context.Context, polite syscall.Signal) {
	p.Signal(polite)
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.Kill()
	}
}

// Environment is this process's environment, in the form of [os.Environ], without what begins with one of the prefixes: what
// is none of a child's business, or would change what it does.
func Environment(without ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !hasAnyPrefix(v, without) {
			env = append(env, v)
		}
	}
	return env
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// logTailBytes is how much of a log an error quotes.
const logTailBytes = 1500

// LogTail is the end of a child's log, at most 1500 bytes without white space around them, for an error that somebody reads. It is
// "" if there is none.
func LogTail(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // G304: a log of this process's own child
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTailBytes):]))
}
