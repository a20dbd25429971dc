package jobs

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Schedule says how long a peer that failed is left alone.
type Schedule struct {
	Initial time.Duration // after the first failure, and the least. Defaults to 1s.
	Max     time.Duration // the most. Defaults to 15s.
	Hold    time.Duration // after a failure that only a person can mend. Defaults to 4 times Max.
}

// scheduleMultiplier is by how much the longest pause grows with each failure, until Max.
const scheduleMultiplier = 2

func (s Schedule) withDefaults() Schedule {
	if s.Initial <= 0 {
		s.Initial = time.Second
	}
	if s.Max <= 0 {
		s.Max = 15 * time.Second
	}
	s.Max = max(s.Max, s.Initial)
	if s.Hold <= 0 {
		s.Hold = 4 * s.Max
	}
	return s
}

// Delay returns the pause after the given number of failures in a row (1 or more), at least floor, which is what the peer
// asked for (Retry-After). Full jitter: any time from Initial to Initial·2^(failures-1) is as likely as another, so that
// what one outage stopped does not come back at the same instant. Once that has reached Max, the pause is from 0.4 Max to Max: a peer that stays away is
// asked every 0.7 Max, on average.
func (s Schedule) Delay(failures int, floor time.Duration) time.Duration {
	s = s.withDefaults()
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(s.Initial),
		backoff.WithMultiplier(scheduleMultiplier),
		backoff.WithMaxInterval(s.Max),
		backoff.WithRandomizationFactor(0), // the jitter below is wider than the library's
		backoff.WithMaxElapsedTime(0),      // a peer is never given up
	)
	interval := s.Initial
	for range min(max(failures, 1), 64) { // 2^63 intervals are beyond every Max
		interval = b.NextBackOff()
	}
	least := s.Initial
	if interval >= s.Max {
		least = max(least, 2*s.Max/5)
	}
	jittered := least
	if interval > least {
		jittered += rand.N(interval - least + 1) //nolint:gosec // jitter needs no secrecy
	}
	return max(jittered, floor)
}
