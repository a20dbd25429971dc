package jobs

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Pushers that heed the pace begin rate entries a second over any time, and one push each beyond that.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, pushers, size, span = 1000, 4, 250, 10 * time.Second
		p := newPace(rate)
		var (
			mu    sync.Mutex
			begun int
			group sync.WaitGroup
		)
		start := time.Now()
		for range pushers {
			group.Go(func() {
				for time.Since(start) < span {
					if err := rest(t.Context(), p.wait()); err != nil {
						t.Error(err)
						return
					}
					if p.wait() > 0 {
						continue // another one was quicker
					}
					p.spend(size)
					mu.Lock()
					begun += size
					most := int(rate*time.Since(start)/time.Second) + pushers*size
					if begun > most {
						t.Errorf("got %d entries after %s, want at most %d", begun, time.Since(start), most)
					}
					mu.Unlock()
				}
			})
		}
		group.Wait()
		if least := rate * int(span/time.Second); begun < least {
			t.Errorf("got %d entries in %s, want at least %d: the rate is to be used", begun, span, least)
		}
	})
}

func TestPaceDoesNotSaveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000)
		time.Sleep(time.Hour)
		p.spend(500)
		if got := p.wait(); got != 500*time.Millisecond {
			t.Errorf("got %s after an hour of silence and 500 entries, want 500ms", got)
		}
		time.Sleep(200 * time.Millisecond)
		p.spend(1000)
		if got := p.wait(); got != 1300*time.Millisecond {
			t.Errorf("got %s, want what is left of both: 1.3s", got)
		}
	})
}

func TestNoPace(t *testing.T) {
	t.Parallel()
	paces := Config{Peers: []string{"a"}, CatchupRates: map[string]int{"a": 0}}.withDefaults().paces
	for _, p := range []string{"a", "b"} {
		paces[p].spend(1_000_000)
		if got := paces[p].wait(); got != 0 {
			t.Errorf("%s: got %s without a rate, want no wait", p, got)
		}
	}
}

// A pause is as long as the push before it, up to a bound, and runs beside what the entries cost.
func TestPacePauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000)
		p.pause(100 * time.Millisecond)
		if got := p.wait(); got != 100*time.Millisecond {
			t.Errorf("got %s after a push of 100ms, want as much", got)
		}
		p.pause(time.Hour)
		if got := p.wait(); got != restMost {
			t.Errorf("got %s after a push of an hour, want %s", got, restMost)
		}
		p.spend(5000)
		want := p.wait()
		p.pause(100 * time.Millisecond)
		if got := p.wait(); got != want {
			t.Errorf("got %s, want %s: what the entries cost is longer than the pause", got, want)
		}
	})
}
