package jobs_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
	"quorumbox/internal/refpeer"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

// Checklist row 33: W = 1 is met by the local commit while all peers are down, and they get it later.
func TestLocalCommitIsEnough(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{writes: 1})
	for _, n := range m.nodes {
		n.fault(t, refpeer.Fault{Mode: refpeer.ModeDown})
	}
	if v := m.await(m.store("m-1")...); !v.IsMet() {
		t.Errorf("got %+v, want met", v)
	}
	for id, n := range m.nodes {
		if got := n.holds(t).Live; len(got) != 0 {
			t.Errorf("%s: got %q, want nothing", id, got)
		}
		n.fault(t)
	}
	m.settled()
	for id, n := range m.nodes {
		if got := n.holds(t).Live; !slices.Equal(got, []string{"m-1"}) {
			t.Errorf("%s in the end: got %q, want m-1", id, got)
		}
	}
}

// Checklist row 50: what no quorum has stays where it was written, and what it was written with can be read and changed.
func TestLocalRowStaysWhenNotMet(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{})
	m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeStatus, Status: 503})
	if v := m.await(m.store("m-1")...); v.NotMet[outbox.ReasonUnreachable] != 1 {
		t.Errorf("got %+v, want not met: unreachable", v)
	}
	if n := m.scalar(`select count(*) from memories where id = 'm-1' and content = 'content' and version = 1`); n != 1 {
		t.Errorf("got %d local rows, want 1", n)
	}
	m.inTx(func(tx pgx.Tx) error {
		_, err := outbox.Store(t.Context(), tx, outbox.Memory{ID: "m-1", Namespace: "ns", Title: "m-1", Content: "changed"})
		return err
	})
	m.nodes["b"].fault(t)
	m.settled()
	if n := m.scalar(`select count(*) from memories where id = 'm-1' and content = 'changed' and version = 2`); n != 1 {
		t.Errorf("got %d changed rows, want 1", n)
	}
}

// Checklist row 14: a peer whose host is refused gets no connection, and the others make the quorum.
func TestRefusedHostLeavesTheQuorumToTheOthers(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{writes: 2, peer: func(c *peer.Config) {
		if c.ID == "b" {
			c.Gate = func(_, _ string) error { return errors.New("not this one") }
		}
	}})
	if v := m.await(m.store("m-1")...); !v.IsMet() {
		t.Errorf("got %+v, want met by a", v)
	}
	m.eventually("b is held", func() bool {
		return m.scalar(`select count(*) from peers where id = 'b' and last_error_class = 'blocked'`) == 1
	})
	if n := len(m.nodes["b"].got()); n != 0 {
		t.Errorf("b got %d requests, want none", n)
	}
	if n := m.scalar(`select count(*) from batches where acked = '{a}'`); n != 1 {
		t.Errorf("got %d batches acknowledged by a alone, want 1", n)
	}
	m.ended()
	told := m.log.lines(t, toldMissing)
	if len(told) == 0 || told[0]["reason"] != "governance refused outbound to 127.0.0.1: not this one" {
		t.Errorf("got %v, want a line that names the host", told)
	}
}

// Checklist row 40, the reference's gate: W = 2, N = 3, 200 writes, and each peer has 200 although one of them is always the straggler.
func TestTwoHundredWritesReachBothPeers(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{writes: 2})
	m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeSlow, Delay: 20 * time.Millisecond})
	const writers, each = 8, 25
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				id := fmt.Sprintf("m-%d-%02d", w, i)
				var stored outbox.Stored
				err := pgx.BeginFunc(t.Context(), m.pool, func(tx pgx.Tx) (err error) {
					stored, err = outbox.Store(t.Context(), tx, outbox.Memory{ID: id, Namespace: fmt.Sprintf("ns%d", w), Title: id, Content: "c"})
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				v, err := outbox.Await(t.Context(), m.pool, stored.Entry)
				if err != nil || !v.IsMet() {
					t.Errorf("%s: got %+v, %v, want met", id, v, err)
				}
			}
		})
	}
	group.Wait()
	m.settled()
	for id, n := range m.nodes {
		if got := len(n.holds(t).Live); got != writers*each {
			t.Errorf("%s has %d memories, want %d", id, got, writers*each)
		}
	}
}

// Checklist rows 46 to 49: a peer without an acknowledgement is noted, with the class of what it answered, in the transaction that records
// the verdict; what it misses is the entries themselves, so that it gets the push that the others got. It takes neither a sink nor luck.
func TestMissingPeerIsNotedWithTheVerdict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault refpeer.Fault
		class string
	}{
		"503":    {refpeer.Fault{Mode: refpeer.ModeStatus, Status: 503}, "unavailable"},
		"401":    {refpeer.Fault{Mode: refpeer.ModeStatus, Status: 401}, "unauthorized"},
		"drift":  {refpeer.Fault{Mode: refpeer.ModeDrift}, "id_drift"},
		"cut":    {refpeer.Fault{Mode: refpeer.ModeDown}, "connection_lost"},
		"silent": {refpeer.Fault{Mode: refpeer.ModeHang}, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := startMesh(t, setting{jobs: func(c *jobs.Config) {
				c.AckTimeout = 600 * time.Millisecond
				c.Grace = 300 * time.Millisecond                            // a's answer is waited for
				c.Retry = jobs.Schedule{Initial: time.Hour, Max: time.Hour} // it stays as the fan-out left it
			}})
			m.nodes["b"].fault(t, c.fault)
			m.await(m.store("m-1")...)
			if n := m.scalar(`select count(*) from lagging where peer = 'b' and last_class = '` + c.class + `'`); n != 1 {
				m.dump()
				t.Errorf("got %d rows of b with class %s as soon as there is a verdict, want 1", n, c.class)
			}
			if n := m.scalar(`select count(*) from lagging where peer = 'a'`); n != 0 {
				t.Errorf("got %d rows of a, want none", n)
			}
			first := m.nodes["a"].got()[0]
			m.nodes["b"].fault(t)
			m.nodes["b"].forget()
			m.eventually("b has it", func() bool { // once it is told "now", the hour not being over
				m.exec(`update lagging set not_before = now()`)
				m.exec(`update river_job set state = 'available', scheduled_at = now() where kind = 'peer_retry' and state = 'scheduled'`)
				return len(m.nodes["b"].got()) > 0
			})
			if got := m.nodes["b"].got()[0]; string(got.body) != string(first.body) {
				t.Errorf("b got %s, want the bytes that a got: %s", got.body, first.body)
			}
		})
	}
}
