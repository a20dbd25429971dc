//go:build unix

package child

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// watchParent is for systems whose kernel does not tell a child of its parent's death. It starts a shell that reads from a
// pipe which only this process holds open: when this process dies, however it does, the read ends and the shell sends the
// signal. release ends the watch. Where no shell can be started, there is no watch, and the server outlives a killed parent
// until somebody stops it.
func watchParent(child *exec.Cmd, signal syscall.Signal) (release func()) {
	pipe, watcher, err := startWatcher(child, signal)
	if err != nil {
		return func() {}
	}
	return func() {
		// The shell must be gone before the pipe closes, or it would send the signal to whoever has the number by then.
		_ = watcher.Process.Kill()
		_ = watcher.Wait() // it was killed
		_ = pipe.Close()   // nothing was written
	}
}

// startWatcher returns the end of the pipe that this process holds, and the shell.
func startWatcher(child *exec.Cmd, signal syscall.Signal) (*os.File, *exec.Cmd, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	watcher := exec.CommandContext(context.Background(), "/bin/sh", "-c", `read -r _; kill -"$1" "$2"`, "sh", //nolint:gosec // two numbers
		strconv.Itoa(int(signal)), strconv.Itoa(child.Process.Pid))
	watcher.Stdin = reader
	watcher.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: child.SysProcAttr.Credential}
	err = errors.Join(watcher.Start(), reader.Close()) // the shell has its own handle
	if err != nil {
		return nil, nil, errors.Join(err, writer.Close())
	}
	return writer, watcher, nil
}
