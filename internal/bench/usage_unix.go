//go:build unix

package bench

import (
	"syscall"
	"time"
)

// ownCPUTime is the processor time that this process has used, without its children.
func ownCPUTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0 // cannot fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
