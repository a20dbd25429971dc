package jobs_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
	"quorumbox/internal/refpeer"
	"quorumbox/outbox"
)

const bulk = 500

func bulkRows() []outbox.Memory {
	rows := make([]outbox.Memory, bulk)
	for i := range rows {
		rows[i] = note(fmt.Sprintf("row-%03d", i))
	}
	return rows
}

func (m *mesh) storeMany(rows []outbox.Memory) []outbox.EntryID {
	m.t.Helper()
	var entries []outbox.EntryID
	m.inTx(func(tx pgx.Tx) error {
		stored, err := outbox.StoreMany(m.t.Context(), tx, rows)
		for _, s := range stored {
			entries = append(entries, s.Entry)
		}
		return err
	})
	return entries
}

// memoriesIn is how many memories a request carries.
func (r request) memoriesIn(t *testing.T) int {
	t.Helper()
	var body struct{ Memories []json.RawMessage }
	if err := json.Unmarshal(r.body, &body); err != nil {
		t.Fatal(err)
	}
	return len(body.Memories)
}

// Checklist rows 65 to 67: the rows of one transaction are one push to each peer, marked as the reference marks its bulk catch-up, and
// signed like any other. Its credential it has, too, which the reference leaves out: a peer that knows the sender by that alone could not
// verify the signature.
func TestBulkIsOnePushForEachPeer(t *testing.T) {
	t.Parallel()
	const held = "v1=bGVhZg==" // peers that know no root do without it
	m := startMesh(t, setting{peer: func(c *peer.Config) {
		c.Credential = func(ed25519.PublicKey) (string, string) { return held, "" }
	}})
	if v := m.await(m.storeMany(bulkRows())...); v.Met != bulk || !v.IsMet() {
		t.Errorf("got %+v, want %d met", v, bulk)
	}
	m.settled()
	for id, n := range m.nodes {
		requests := n.got()
		if len(requests) != 1 || requests[0].memoriesIn(t) != bulk {
			t.Fatalf("%s got %d requests, want one with %d memories", id, len(requests), bulk)
		}
		header := requests[0].header
		if _, has := header["Idempotency-Key"]; has || header.Get("X-Catchup") != "bulk" {
			t.Errorf("%s: got key %q and catch-up %q, want no key, and bulk", id, header["Idempotency-Key"], header.Get("X-Catchup"))
		}
		if header.Get("X-Peer-Id") != leader || header.Get("X-Api-Key") != apiKey || header.Get("X-Memory-Cred") != held {
			t.Errorf("%s: got %v, want sender, api key and credential", id, header)
		}
		if header.Get("X-Memory-Sig") == "" || header.Get("X-Memory-Nonce") == "" {
			t.Errorf("%s: got %v, want signature and nonce", id, header)
		}
		if got := len(n.holds(t).Live); got != bulk {
			t.Errorf("%s has %d memories, want %d", id, got, bulk)
		}
	}
}

// Checklist row 64: nothing written, nothing sent.
func TestBulkOfNothingIsNoPush(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{})
	if entries := m.storeMany(nil); len(entries) != 0 {
		t.Errorf("got entries %v, want none", entries)
	}
	// What is sent next shows that there was nothing before it.
	m.await(m.store("m-1")...)
	m.settled()
	for id, n := range m.nodes {
		if got := len(n.got()); got != 1 {
			t.Errorf("%s got %d requests, want only the one that followed", id, got)
		}
	}
	if n := m.scalar(`select count(*) from outbox`); n != 1 {
		t.Errorf("got %d entries, want 1", n)
	}
}

// Checklist rows 68, 69, 71 and 82: one peer is down. All rows are committed, the other peer has them, the quorum is told for each row, the
// peer that is missing is known by its id, and it has 500 of 500 in the end.
func TestBulkWithAPeerDown(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{writes: 2})
	m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeStatus, Status: 503})
	if v := m.await(m.storeMany(bulkRows())...); v.Met != bulk || !v.IsMet() {
		t.Errorf("got %+v, want %d met", v, bulk)
	}
	if n := m.scalar(`select count(*) from memories`); n != bulk {
		t.Errorf("got %d local rows, want %d", n, bulk)
	}
	if got := len(m.nodes["a"].holds(t).Live); got != bulk {
		t.Errorf("a has %d memories, want %d", got, bulk)
	}
	m.eventually("b is known to be missing", func() bool {
		return m.scalar(`select count(*) from peers where id = 'b' and last_error_class = 'unavailable'`) == 1
	})
	if n := m.scalar(`select count(*) from lagging where peer <> 'b'`); n != 0 {
		t.Errorf("got %d lagging lanes of others, want none", n)
	}
	if got := len(m.nodes["b"].holds(t).Live); got != 0 {
		t.Errorf("b has %d memories, want none yet", got)
	}
	m.nodes["b"].fault(t)
	m.settled()
	if got := len(m.nodes["b"].holds(t).Live); got != bulk {
		t.Errorf("b has %d memories in the end, want %d", got, bulk)
	}
	requests := m.nodes["b"].got()
	if got := requests[len(requests)-1].memoriesIn(t); got != bulk {
		t.Errorf("b was caught up with a push of %d, want one of %d", got, bulk)
	}
}

// Checklist row 71, the gap itself: a peer leaves out one row of the 500, and says so. The reference takes that for an acknowledgement.
// Here it is none, and the row arrives once the peer takes it.
func TestBulkClosesTheGapOfOne(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{writes: 2})
	m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeRefuseID, ID: "row-250"})
	if v := m.await(m.storeMany(bulkRows())...); !v.IsMet() {
		t.Errorf("got %+v, want met by a", v)
	}
	m.eventually("b lacks one", func() bool {
		return m.scalar(`select count(*) from refusals r join outbox o on o.id = r.entry where r.peer = 'b' and o.key = 'row-250'`) == 1
	})
	if n := m.scalar(`select count(*) from batches where 'b' = any (acked)`); n != 0 {
		t.Error("b counts as one that acknowledged")
	}
	if got := len(m.nodes["b"].holds(t).Live); got != bulk-1 {
		t.Errorf("b has %d memories, want %d", got, bulk-1)
	}
	m.nodes["b"].fault(t)
	m.settled()
	m.eventually("b has all", func() bool { return len(m.nodes["b"].holds(t).Live) == bulk })
}

// Checklist row 70: the same rows a second time change nothing at the peers.
func TestBulkASecondTime(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{})
	m.await(m.storeMany(bulkRows())...)
	m.settled()
	before := m.nodes["b"].holds(t)
	if v := m.await(m.storeMany(bulkRows())...); v.Met != bulk || !v.IsMet() {
		t.Errorf("got %+v, want %d met", v, bulk)
	}
	m.settled()
	if diff := cmp.Diff(before, m.nodes["b"].holds(t)); diff != "" {
		t.Errorf("b (-first +second):\n%s", diff)
	}
	if got := len(m.nodes["b"].got()); got != 2 {
		t.Errorf("b got %d requests, want one for each transaction", got)
	}
	if n := m.scalar(`select count(*) from memories where version > 1`); n != 0 {
		t.Errorf("got %d changed rows, want none", n)
	}
	if !slices.Contains(before.Live, "row-499") {
		t.Error("row-499 is not there")
	}
}
