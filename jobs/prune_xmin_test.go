package jobs

import (
	"testing"
	"testing/synctest"
	"time"
)

// Of a replication slot or a standby the server does not say how old its transaction is: it is timed from the first look on.
func TestSinceSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPruner(nil, PruneConfig{})
		look := func(oldest string, transactions int64) time.Duration {
			seen := map[xminHolder]time.Time{}
			age := p.sinceSeen(seen, xminHolder{Kind: "replication slot", Name: "standby", Oldest: oldest}, transactions)
			p.seen = seen
			time.Sleep(tendEvery)
			return age
		}
		for i, c := range []struct {
			oldest       string
			transactions int64
			want         time.Duration
		}{
			{"700", idleXmin - 1, 0}, // nothing happens
			{"700", idleXmin, 0},
			{"700", idleXmin, tendEvery},
			{"700", 5 * idleXmin, 2 * tendEvery},
			{"9000", idleXmin, 0}, // it has moved on
			{"9000", idleXmin, tendEvery},
		} {
			if got := look(c.oldest, c.transactions); got != c.want {
				t.Errorf("look %d: got %s, want %s", i, got, c.want)
			}
		}
	})
}
