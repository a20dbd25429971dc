//go:build unix && !linux

package bench

import (
	"errors"
	"time"
)

// errNoProc says that this system does not tell what another process uses; the report leaves these figures out.
var errNoProc = errors.New("no /proc on this system")

func cpuTime(int) (time.Duration, error)       { return 0, errNoProc }
func serverCPUTime(int) (time.Duration, error) { return 0, errNoProc }
func busyTime() (time.Duration, error)         { return 0, errNoProc }
func peakRSS(int) (int64, error)               { return 0, errNoProc }
func cpuModel() string                         { return "unknown CPU" }
