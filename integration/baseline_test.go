package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// A worker's goroutines and sockets are what they were, when peers that were down, slow and lost answers are well again (C7).
func TestBackToBaseline(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("sockets are counted in /proc")
	}
	f := newFleet(t, setup{ackTimeout: time.Second, admin: freeAddr(t)})
	w := f.worker(t, "")
	f.trouble(t, "first") // connections that are kept are there after that
	goroutines, sockets := f.goroutines(t), w.sockets()
	most := f.trouble(t, "second")
	until(t, "goroutines and sockets are what they were", func() []string {
		now, open := f.goroutines(t), w.sockets()
		return append(
			holds(now <= goroutines+goroutines/20+5, fmt.Sprintf("C7: %d goroutines, %d before", now, goroutines)),
			holds(open <= sockets+sockets/20+5, fmt.Sprintf("C7: %d sockets, %d before", open, sockets))...)
	})
	t.Logf("goroutines: %d before, %d meanwhile, %d after; sockets: %d before, %d after", goroutines, most, f.goroutines(t), sockets, w.sockets())
	if goroutines == 0 || sockets == 0 {
		t.Error("C10: nothing was counted")
	}
}

// trouble lets peers be slow, lose answers and be down under load, and heals them. It returns how many goroutines the worker had meanwhile.
func (f *fleet) trouble(t *testing.T, round string) (goroutines int) {
	t.Helper()
	n := 0
	l := startLoad(t, 1, func(ctx context.Context, _ *rand.Rand, _, _ int) error {
		n++
		return pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
			_, err := outbox.StoreMany(ctx, tx, memories(fmt.Sprintf("%s-%d", round, n), 5))
			return err
		})
	})
	f.peers[0].setFaults(t, `{"mode":"slow","delay":"300ms","probability":0.3}`)
	f.peers[1].setFaults(t, `{"mode":"lose_answer","probability":0.3}`)
	f.peers[2].kill(t)
	l.reach(t, 150)
	goroutines = f.goroutines(t)
	l.stop(t)
	for _, p := range f.peers[:2] {
		p.setFaults(t, "")
	}
	f.peers[2].start(t)
	f.converge(t, insertsOnly)
	return goroutines
}

// goroutines is how many the worker that has the admin address says it has.
func (f *fleet) goroutines(t *testing.T) int {
	t.Helper()
	found := regexp.MustCompile(`(?m)^go_goroutines (\d+)`).FindStringSubmatch(strings.Join(f.metrics(t), "\n"))
	if found == nil {
		t.Fatal("the metrics do not count goroutines")
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
