package integration

import (
	"strings"
	"testing"
	"time"
)

// settleTime is how long the fleet gets to do what it does by itself: a lease to run out, a sweep, a retry. On a loaded machine with two
// cores it takes a few seconds.
const settleTime = 60 * time.Second

// pollEvery is how often a condition is looked at.
const pollEvery = 20 * time.Millisecond

// until waits until problems returns none, and fails the test with those that are left after settleTime.
func until(t *testing.T, what string, problems func() []string) {
	t.Helper()
	untilWithin(t, settleTime, what, problems)
}

func untilWithin(t *testing.T, within time.Duration, what string, problems func() []string) {
	t.Helper()
	start := time.Now()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		left := problems()
		if len(left) == 0 {
			return
		}
		if time.Since(start) > within {
			t.Fatalf("waited %s until %s:\n%s", within, what, list(left))
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatalf("test ended while waiting until %s:\n%s", what, list(left))
		}
	}
}

// holds is a problem for until: none if ok, else the text.
func holds(ok bool, text string) []string {
	if ok {
		return nil
	}
	return []string{text}
}

// list joins the first lines of a longer list.
func list(lines []string) string {
	const most = 15
	if len(lines) > most {
		lines = append(lines[:most:most], "…")
	}
	return "  " + strings.Join(lines, "\n  ")
}
