package integration

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"quorumbox/internal/fault"
)

// process is one child process. What it prints goes to a file that all processes of its name share, one after the other.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string // path

	// In a campaign: where it kills itself, which other worker ran when it was started, and that its end was seen.
	point         fault.Point
	startedBeside *process
	counted       bool

	riverClient string // once known

	done chan struct{} // closed when the process has ended; cmd.ProcessState is set then
}

// launch starts the program. It is killed when the test ends, if it still runs then.
func launch(t *testing.T, name, dir string, env []string, args ...string) *process {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin.launch(t, name, dir, env, args...)
}

func (bin program) launch(t *testing.T, name, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), bin.path, args...) //nolint:gosec // our own program; it ends by the cleanup
	p.cmd.Env = append(cleanEnvironment(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: bin.group}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// cleanEnvironment is this process's environment without what the program reads.
func cleanEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "QUORUMBOX_") && !strings.HasPrefix(v, "DATABASE_URL=") && !strings.HasPrefix(v, "FAULTS=") {
			env = append(env, v)
		}
	}
	return env
}

// signal sends s.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s to %s: %v", s, p.name, err)
	}
}

// terminate ends the process with SIGTERM, which it must follow within what its running jobs are given, with exit code 0.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	p.wait(t, 20*time.Second)
	p.wantExit(t, 0)
}

// wait waits for the end of the process.
func (p *process) wait(t *testing.T, within time.Duration) {
	t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		t.Fatalf("%s has not ended within %s", p.name, within)
	}
}

// kill ends the process with SIGKILL.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	p.wait(t, 10*time.Second)
	p.wantKilled(t)
}

// wantKilled checks that the process, which has ended, was ended by SIGKILL (C10).
func (p *process) wantKilled(t *testing.T) {
	t.Helper()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %s, want killed by SIGKILL\n%s", p.name, p.cmd.ProcessState, p.tail(20))
	}
}

// wantExit checks the exit code of the process, which has ended.
func (p *process) wantExit(t *testing.T, code int) {
	t.Helper()
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s: %s, want exit code %d\n%s", p.name, p.cmd.ProcessState, code, p.tail(20))
	}
}

// hasEnded reports whether the process is over.
func (p *process) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output is everything that processes of this name have printed.
func (p *process) output() []byte {
	out, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return out
}

// client is the id under which a worker's River client takes jobs; it names it in its log. Empty if it has not got that far.
func (p *process) client() string {
	if p.riverClient == "" {
		found := regexp.MustCompile(`"River client started","client_id":"([^"]+)"`).FindSubmatch(p.output())
		if found != nil {
			p.riverClient = string(found[1])
		}
	}
	return p.riverClient
}

// tail returns the last lines of the output.
func (p *process) tail(lines int) string {
	all := bytes.Split(bytes.TrimSpace(p.output()), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
