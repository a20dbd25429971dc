package peer

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// MinRetryAfter is the least time that a peer is left alone once it asks for it.
	MinRetryAfter = time.Second
	// MaxRetryAfter is the most, so that a peer with a wrong clock or a bad intention does not stay without pushes.
	MaxRetryAfter = 15 * time.Minute
)

// retryAfter returns the wait that an answer asks for: Retry-After (RFC 9110 10.2.3, seconds or a date), else the header
// x-quota-reset-at, else resetAt (the reset_at of a quota body), both RFC 3339. The first of them that can be read counts,
// clamped to [MinRetryAfter, MaxRetryAfter]; 0 if there is none.
func retryAfter(header http.Header, resetAt string, now time.Time) time.Duration {
	if wait, ok := parseRetryAfter(header.Get("Retry-After"), now); ok {
		return wait
	}
	if wait, ok := parseResetAt(header.Get("X-Quota-Reset-At"), now); ok {
		return wait
	}
	wait, _ := parseResetAt(resetAt, now)
	return wait
}

func parseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	digits := strings.TrimPrefix(value, "-")
	if digits != "" && strings.Trim(digits, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		switch {
		case digits != value:
			return MinRetryAfter, true
		case err != nil || seconds > int64(MaxRetryAfter/time.Second):
			return MaxRetryAfter, true
		}
		return clampRetryAfter(time.Duration(seconds) * time.Second), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return clampRetryAfter(at.Sub(now)), true
}

func parseResetAt(value string, now time.Time) (time.Duration, bool) {
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(value))
	if err != nil {
		return 0, false
	}
	return clampRetryAfter(at.Sub(now)), true
}

func clampRetryAfter(wait time.Duration) time.Duration {
	return min(max(wait, MinRetryAfter), MaxRetryAfter)
}
