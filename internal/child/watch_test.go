//go:build unix

package child

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// sleeper is a child that does nothing for longer than the test takes.
func sleeper(t *testing.T) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1) // one send; never blocks
	go func() { ended <- cmd.Wait() }()
	return cmd, ended
}

// The parent's death itself is tested with a server, on the systems whose guard this is; here the watcher sees what it would
// see then: the end of its pipe.
func TestWatcherSendsSignalWhenPipeEnds(t *testing.T) {
	t.Parallel()
	cmd, ended := sleeper(t)
	pipe, watcher, err := startWatcher(cmd, syscall.SIGINT)
	if err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case err := <-ended:
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !ok || status.Signal() != syscall.SIGINT {
			t.Errorf("got end %v, want by SIGINT", err)
		}
	case <-ctx.Done():
		t.Error("the child still runs")
	}
	if err := watcher.Wait(); err != nil {
		t.Errorf("watcher: %v", err)
	}
}

func TestReleasedWatcherSendsNothing(t *testing.T) {
	t.Parallel()
	cmd, ended := sleeper(t)
	watchParent(cmd, syscall.SIGINT)()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("got end %v, want by our SIGTERM", err)
	}
}
