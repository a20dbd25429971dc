package quorum

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Answers that are there when grace ends are no stragglers, whichever the select saw first.
func TestGraceTakesWhatHasArrived(t *testing.T) {
	t.Parallel()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			results := make(chan result, 8)
			c := collector{deadline: time.Now().Add(time.Hour), results: results}
			for i := range cap(results) {
				peer := fmt.Sprintf("p%d", i)
				c.missing = append(c.missing, peer)
				results <- result{peer: peer, at: time.Now()}
			}
			c.forGrace(t.Context(), 0)
			if len(c.missing) != 0 {
				t.Errorf("left out: %v", c.missing)
			}
		})
	}
}
