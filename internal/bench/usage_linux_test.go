package bench

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	raw := "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 12 0 99 1 2"
	got, err := parseStat([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{parent: 17, own: 2 * time.Second, children: 500 * time.Millisecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseStatRefuses(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"nothing":   "",
		"too short": "1 (a) S 17 1",
		"no number": "4242 (a) S 17 4242 4242 0 -1 4194560 1 2 3 4 x 50 30 20 20",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := parseStat([]byte(raw)); err == nil {
				t.Errorf("got %+v, want an error", got)
			}
		})
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	t.Parallel()
	if _, err := cpuTime(os.Getpid()); err != nil {
		t.Error(err)
	}
	if rss, err := peakRSS(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("peak RSS: got %d bytes, %v, want more than 1 MiB", rss, err)
	}
}

func TestParseBusy(t *testing.T) {
	t.Parallel()
	got, err := parseBusy("cpu  100 20 30 4000 500 6 7 8 99 99\ncpu0 1 2 3 4\n")
	if want := 1710 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu  100 20 x 4000 500 6 7 8"} {
		if got, err := parseBusy(bad); err == nil {
			t.Errorf("%q: got %s, want an error", bad, got)
		}
	}
}
