package integration

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/fault"
	"quorumbox/outbox"
)

// A memory moves into a lane that then gets more than fits into one push, all while a peer is down. The lane it came from, which has to be
// first, must not be hidden by the one that waits for it.
func TestLagBehindAnotherLane(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{retries: 1}) // which takes all lanes of the peer together
	low, high := f.twoLanes(t)
	w := f.worker(t, "")
	peer := f.peers[2]
	peer.kill(t)

	moved := memory("moved", high)
	wantMet(t, f.await(t, f.store(t, moved)...), 1)
	moved.Namespace = low
	wantMet(t, f.await(t, f.store(t, moved)...), 1)
	many := memories("many", 1500)
	for i := range many {
		many[i].Namespace = low
	}
	wantMet(t, f.await(t, f.store(t, many...)...), len(many))

	w.terminate(t)
	peer.start(t)
	until(t, "all lanes may be tried again", func() []string {
		early, err := f.strings(t.Context(), `select 'lane ' || lane || ' may not' from lagging where not_before > clock_timestamp()`)
		return append(early, problem(err)...)
	})
	f.worker(t, "")
	f.converge(t, changes)
}

// twoLanes returns a namespace of a lower lane and one of a higher.
func (f *fleet) twoLanes(t *testing.T) (low, high string) {
	t.Helper()
	err := f.pool.QueryRow(t.Context(), `
		select a.ns, b.ns
		from (values ('one'), ('two'), ('three'), ('four')) a (ns), (values ('one'), ('two'), ('three'), ('four')) b (ns)
		where outbox_lane(a.ns) < outbox_lane(b.ns)
		limit 1`).Scan(&low, &high)
	if err != nil {
		t.Fatal(err)
	}
	return low, high
}

// A worker dies, or an answer is lost, after a peer has applied a range in which a memory got another title. The range is pushed once more, to a
// peer that is ahead of its beginning, and must be accepted.
func TestRenamesPushedAgain(t *testing.T) {
	t.Parallel()
	t.Run("worker killed", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, setup{})
		f.renames(t)
		f.workerKilledAt(t, string(fault.FanOutAcked))
		f.worker(t, "")
		f.converge(t, changes)
	})
	for _, push := range []int{1, 2} {
		t.Run(fmt.Sprintf("answer of push %d lost", push), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, setup{})
			// The answers of both attempts; a delay of nothing to speak of lets the pushes before pass.
			faults := `{"mode":"lose_answer","count":2}`
			if push > 1 {
				faults = fmt.Sprintf(`{"mode":"slow","delay":"1ms","count":%d},`, push-1) + faults
			}
			f.peers[2].setFaults(t, "["+faults+"]")
			f.renames(t)
			f.worker(t, "")
			until(t, "the answers were lost", func() []string {
				c, err := f.peers[2].counters(t.Context())
				return append(problem(err), holds(c.Faults["lose_answer"] == 2, "not twice")...)
			})
			f.converge(t, changes)
		})
	}
}

// renames commits, in one namespace and transaction, entries that take several pushes: a memory gets another title, and one takes the
// title of a memory that is deleted.
func (f *fleet) renames(t *testing.T) {
	t.Helper()
	const namespace = "team/renames"
	first, second, third := memory("first", namespace), memory("second", namespace), memory("third", namespace)
	err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
		if _, err := outbox.StoreMany(t.Context(), tx, []outbox.Memory{first, second}); err != nil {
			return err
		}
		if _, err := outbox.Delete(t.Context(), tx, first.ID); err != nil {
			return err
		}
		third.Title = first.Title
		second.Title = "another title"
		_, err := outbox.StoreMany(t.Context(), tx, []outbox.Memory{third, second})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
