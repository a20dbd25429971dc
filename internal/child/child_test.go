//go:build unix

package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// parentVariable makes this test binary a parent: it starts a child, says its number, and waits to be killed.
const parentVariable = "CHILD_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) != "" {
		if err := beParent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func beParent() error {
	p, err := Start(exec.CommandContext(context.Background(), "sleep", "600"), syscall.SIGKILL)
	if err != nil {
		return err
	}
	fmt.Println(p.Pid())
	_, err = os.Stdin.Read(make([]byte, 1)) // the other end stays open
	return err
}

func shell(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(context.WithoutCancel(t.Context()), "/bin/sh", "-c", script) //nolint:gosec // G204: a script of this test
}

// start starts the script and returns once it has written a line; the child is gone when the test ends.
func start(t *testing.T, script string) (*Process, string) {
	t.Helper()
	p, line, err := StartWithLine(t.Context(), shell(t, script), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, line
}

func endedBy(t *testing.T, p *Process, want syscall.Signal) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](p.Err())
	if !ok {
		t.Fatalf("got %v, want an end by %s", p.Err(), want)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != want {
		t.Errorf("got %v, want an end by %s", p.Err(), want)
	}
}

func TestStartWithLine(t *testing.T) {
	t.Parallel()
	p, line := start(t, "echo hello; echo more; exec sleep 600")
	if line != "hello" {
		t.Errorf("first line: got %q, want hello", line)
	}
	if err := p.Err(); err != nil {
		t.Errorf("got %v of a child that runs, want nil", err)
	}
	group, err := syscall.Getpgid(p.Pid())
	if err != nil || group != p.Pid() {
		t.Errorf("got process group %d, %v, want its own, %d", group, err, p.Pid())
	}
	p.Kill()
	endedBy(t, p, syscall.SIGKILL)
	p.Kill() // does nothing
	p.Stop(t.Context(), syscall.SIGTERM)
	endedBy(t, p, syscall.SIGKILL)
}

func TestStartWithLineThatDoesNotCome(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ script, want string }{
		"it fails":                 {"exit 3", "exit status 3"},
		"it ends":                  {"exit 0", "exit status 0"},
		"it closes its output":     {"exec >&-; exit 4", "exit status 4"},
		"its line is far too long": {"head -c 100000 /dev/zero; exit 5", "exit status 5"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, line, err := StartWithLine(t.Context(), shell(t, test.script), syscall.SIGKILL)
			if err == nil || err.Error() != test.want || line != "" {
				t.Errorf("got %q, %v, want %s", line, err, test.want)
			}
			p.Kill()
		})
	}
}

func TestStartWithLineEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	p, _, err := StartWithLine(ctx, shell(t, "exec sleep 600"), syscall.SIGKILL)
	if !errors.Is(err, enough) || p.Err() != nil {
		t.Errorf("got %v and a child with %v, want %v and one that runs", err, p.Err(), enough)
	}
	p.Kill()
}

func TestStartOfNoProgram(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	if p, err := Start(exec.CommandContext(t.Context(), none), syscall.SIGKILL); err == nil || p != nil { //nolint:gosec // it does not exist
		t.Errorf("Start: got %v, want an error and no process", err)
	}
	if p, _, err := StartWithLine(t.Context(), exec.CommandContext(t.Context(), none), syscall.SIGKILL); err == nil || p != nil { //nolint:gosec // as above
		t.Errorf("StartWithLine: got %v, want an error and no process", err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script string
		grace  time.Duration
		want   func(*testing.T, *Process)
	}{
		"it follows": {`trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`, time.Minute, func(t *testing.T, p *Process) {
			t.Helper()
			if got := p.Err(); got == nil || got.Error() != "exit status 7" {
				t.Errorf("got %v, want exit status 7", got)
			}
		}},
		"it does not": {`trap '' TERM; echo ready; while :; do sleep 0.01; done`, 100 * time.Millisecond, func(t *testing.T, p *Process) {
			t.Helper()
			endedBy(t, p, syscall.SIGKILL)
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := start(t, test.script)
			ctx, cancel := context.WithTimeout(t.Context(), test.grace)
			defer cancel()
			p.Stop(ctx, syscall.SIGTERM)
			select {
			case <-p.Exited():
			default:
				t.Error("the child is not gone")
			}
			test.want(t, p)
		})
	}
}

func TestChildDiesWithKilledParent(t *testing.T) {
	t.Parallel()
	parent := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test binary
	parent.Env = append(os.Environ(), parentVariable+"=1")
	parent.Stderr = t.Output()
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	killErr := parent.Process.Kill()
	_ = parent.Wait() // it was killed
	if readErr != nil || killErr != nil {
		t.Fatalf("read from the parent: %v; kill it: %v", readErr, killErr)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for isRunning(pid) {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("child %d still runs", pid)
		}
	}
}

// isRunning reports whether the process exists and is no zombie that nobody has collected yet.
func isRunning(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func TestEnvironment(t *testing.T) {
	t.Setenv("CHILD_TEST_A", "1")
	t.Setenv("CHILD_TEST_AB", "2")
	t.Setenv("CHILD_TEST_C", "3")
	tests := map[string]struct {
		without []string
		want    string
	}{
		"all":      {nil, "CHILD_TEST_A=1 CHILD_TEST_AB=2 CHILD_TEST_C=3"},
		"prefix":   {[]string{"CHILD_TEST_A"}, "CHILD_TEST_C=3"},
		"one name": {[]string{"CHILD_TEST_A="}, "CHILD_TEST_AB=2 CHILD_TEST_C=3"},
		"several":  {[]string{"CHILD_TEST_C", "CHILD_TEST_AB"}, "CHILD_TEST_A=1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, v := range Environment(test.without...) {
				if strings.HasPrefix(v, "CHILD_TEST_") {
					got = append(got, v)
				}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("got %s, want %s", text, test.want)
			}
		})
	}
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if got := LogTail(path); got != "" {
		t.Errorf("no log: got %q, want nothing", got)
	}
	if err := os.WriteFile(path, []byte("start"+strings.Repeat("x", logTailBytes)+"end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := LogTail(path), strings.Repeat("x", logTailBytes-len("end\n"))+"end"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFreePort(t *testing.T) {
	t.Parallel()
	port, err := FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if port < 20000 || port >= 32000 {
		t.Errorf("got %d, want one from 20000 up and below 32000", port)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
}
