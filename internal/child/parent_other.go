//go:build unix && !linux

package child

import (
	"os/exec"
	"syscall"
)

// endWithParent has nothing to do here: guardChild does it.
func endWithParent(*exec.Cmd, syscall.Signal) {}

// guardChild starts a watcher that sends the signal to the program when this process dies.
func guardChild(cmd *exec.Cmd, signal syscall.Signal) (release func()) {
	return watchParent(cmd, signal)
}
