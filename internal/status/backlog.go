package status

import (
	"context"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// Backlog is what waits, and where: the part of a [Report] that metrics show.
type Backlog struct {
	Peers        []Peer // by id
	Undispatched Undispatched
	Undecided    Undecided
	Refusals     []Refusals // by peer and class; none of an absent peer
}

// Refusals is how many entries a peer refuses for good with one class of answer.
type Refusals struct {
	Peer    string
	Class   peer.Class // as it is written down: maybe of another release
	Entries int64      // at least, where the peer has 100,000 of all classes
}

// ReadBacklog is [Read] without the verdicts, and with the refusals by class.
func ReadBacklog(ctx context.Context, db DB) (Backlog, error) {
	var (
		r    Report
		list []Refusals
		b    pgx.Batch
	)
	r.queuePeers(&b)
	r.queueUndispatched(&b)
	r.queueUndecided(&b)
	queueRefusals(&b, &list)
	if err := send(ctx, db, &b); err != nil {
		return Backlog{}, err
	}
	return Backlog{Peers: r.Peers, Undispatched: r.Undispatched, Undecided: r.Undecided, Refusals: list}, nil
}

func queueRefusals(b *pgx.Batch, list *[]Refusals) {
	b.Queue(`
		select p.id as peer, f.class, count(*) as entries
		from peers p
		cross join lateral (select r.class from refusals r where r.peer = p.id limit $1) f
		where p.state <> 'absent'
		group by p.id, f.class
		order by p.id, f.class`, countLimit).Query(func(rows pgx.Rows) error {
		var err error
		*list, err = pgx.CollectRows(rows, pgx.RowToStructByName[Refusals])
		return err
	})
}
