package peer_test

import (
	"net/http"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 15, 23, 55, 0, 0, time.UTC)
	tests := []struct {
		name, retryAfter, quotaHeader, resetAt string
		want                                   time.Duration
	}{
		{name: "none", want: 0},
		{name: "seconds", retryAfter: "7", want: 7 * time.Second},
		{name: "blanks", retryAfter: " 7 ", want: 7 * time.Second},
		{name: "zero", retryAfter: "0", want: time.Second},
		{name: "negative", retryAfter: "-5", want: time.Second},
		{name: "a billion", retryAfter: "1000000000", want: 15 * time.Minute},
		{name: "overflow", retryAfter: "99999999999999999999999", want: 15 * time.Minute},
		{name: "overflows a Duration", retryAfter: "9223372036854775807", want: 15 * time.Minute},
		{name: "HTTP date", retryAfter: "Mon, 15 Jun 2026 23:55:30 GMT", want: 30 * time.Second},
		{name: "HTTP date in the past", retryAfter: "Mon, 15 Jun 2020 23:55:30 GMT", want: time.Second},
		{name: "HTTP date far off", retryAfter: "Mon, 15 Jun 2099 23:55:30 GMT", want: 15 * time.Minute},
		{name: "garbage", retryAfter: "soon", want: 0},
		{name: "fraction", retryAfter: "1.5", want: 0},
		{name: "lone sign", retryAfter: "-", want: 0},
		{name: "quota header", quotaHeader: "2026-06-16T00:00:00+00:00", want: 5 * time.Minute},
		{name: "quota header with Z", quotaHeader: "2026-06-16T00:00:00Z", want: 5 * time.Minute},
		{name: "quota body", resetAt: "2026-06-16T00:00:00.123456789+00:00", want: 5*time.Minute + 123456789},
		{name: "quota far off", resetAt: "2026-06-17T00:00:00+00:00", want: 15 * time.Minute},
		{name: "quota passed", resetAt: "2026-06-15T00:00:00+00:00", want: time.Second},
		{name: "Retry-After wins", retryAfter: "9", quotaHeader: "2026-06-16T00:00:00Z", resetAt: "2026-06-16T00:01:00Z", want: 9 * time.Second},
		{name: "header wins over body", quotaHeader: "2026-06-16T00:00:00Z", resetAt: "2026-06-16T00:01:00Z", want: 5 * time.Minute},
		{name: "unreadable falls through", retryAfter: "soon", quotaHeader: "midnight", resetAt: "2026-06-16T00:01:00Z", want: 6 * time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			header.Set("Retry-After", test.retryAfter)
			header.Set("x-quota-reset-at", test.quotaHeader)
			if got := peer.RetryAfterOf(header, test.resetAt, now); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "7", "-1", "99999999999999999999", "Mon, 15 Jun 2026 23:55:30 GMT", "2026-06-16T00:00:00Z", "--1", "+3"} {
		f.Add(seed, seed, seed, int64(1_781_000_000))
	}
	f.Fuzz(func(t *testing.T, value, quota, resetAt string, now int64) {
		header := http.Header{"Retry-After": {value}, "X-Quota-Reset-At": {quota}}
		got := peer.RetryAfterOf(header, resetAt, time.Unix(now, 0))
		if got != 0 && (got < peer.MinRetryAfter || got > peer.MaxRetryAfter) {
			t.Errorf("got %s, want 0 or within the bounds", got)
		}
	})
}
