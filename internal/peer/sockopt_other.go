//go:build !linux

package peer

import "time"

// setUserTimeout does nothing: the option is Linux's.
func setUserTimeout(uintptr, time.Duration) error { return nil }
