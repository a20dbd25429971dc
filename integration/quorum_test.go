package integration

import (
	"testing"

	"quorumbox/outbox"
)

func TestTransactionOf500RowsIsAFewPushes(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	f.worker(t, "")

	entries := f.store(t, memories("row", 500)...)
	wantMet(t, f.await(t, entries...), 500)
	f.converge(t, insertsOnly)

	const most = 3
	for _, p := range f.peers {
		c, err := p.counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.total(); got == 0 || got > most {
			t.Errorf("%s got %d pushes (%v), want 1 to %d", p.id, got, c.Pushes, most)
		}
	}
	if again := f.sentTwice(t.Context()); len(again) > 0 {
		t.Errorf("sent twice:\n%s", list(again))
	}
}

func TestBothPeersDead(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{peers: 2, writes: "2"})
	for _, p := range f.peers {
		p.kill(t)
	}
	f.worker(t, "")

	list := memories("row", 20)
	entries := f.store(t, list...)
	entries = append(entries, f.delete(t, list[3].ID))
	v := f.await(t, entries...)
	if v.Met != 0 || v.NotMet[outbox.ReasonUnreachable] != len(entries) {
		t.Errorf("verdict %+v, want %d entries not met, %s", v, len(entries), outbox.ReasonUnreachable)
	}
	if got := f.count(t, `select count(*) from memories`); got != len(list)-1 {
		t.Errorf("the writer has %d memories, want %d: a quorum that is not met takes nothing back", got, len(list)-1)
	}
	until(t, "each lagging lane has its retry", func() []string { return f.retryJobs(t.Context()) })
	if got := f.count(t, `select count(*) from lagging`); got == 0 {
		t.Error("C10: no lane lags")
	}

	for _, p := range f.peers {
		p.start(t)
	}
	f.converge(t, insertsOnly)
	wantMet(t, f.await(t, f.store(t, memories("later", 3)...)...), 3)
}
