package verify

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/jsonsame"
	"quorumbox/internal/peer"
)

// pendingsAtOnce bounds how many of the store's pending actions are in this process's memory: an entry has up to 1 MiB.
const pendingsAtOnce = 20

// comparePendings compares the pending actions of a namespace that the store has. A peer parks actions of its own, which are not looked at.
func (r *run) comparePendings(ctx context.Context, namespace string) error {
	for after := ""; ; {
		ids, err := collect(ctx, r.store.conn, pgx.RowTo[string], "list pending actions", `
			select p.id from pending_actions p where p.namespace = $1 and p.id > $2 order by p.id limit $3`, namespace, after, peer.MaxPage)
		if err != nil || len(ids) == 0 {
			return err
		}
		after = ids[len(ids)-1]
		suspects := make([]suspect, len(ids))
		for i, id := range ids {
			suspects[i] = suspect{Key: id, Namespace: namespace}
		}
		m := &pendings{run: r}
		differences, err := m.look(ctx, suspects)
		if err != nil {
			if refused(err) || errors.Is(err, errRepeats) {
				r.note("the peer does not list its pending actions as a whole: they are not compared")
				return nil
			}
			return err
		}
		suspects = slices.DeleteFunc(suspects, func(s suspect) bool { return differences[s.Key] == nil })
		if err := r.settle(ctx, m, suspects, r.found(ctx, ofPendings)); err != nil {
			return err
		}
	}
}

// pendings is the matter of pending actions. Peers do not give single ones: each look reads the list.
type pendings struct{ *run }

// pendingRow is what the store knows of one pending action.
type pendingRow struct {
	ID, ActionType, MemoryID, Namespace string
	Payload                             []byte
	RequestedBy, RequestedAt            string
	Status, DecidedBy                   string
	Approvals                           []byte
}

// pendingState is what tells whether one has changed.
type pendingState struct {
	ID        string
	Stamp     string
	Lane      int16
	Repairing bool
}

func (m *pendings) state(ctx context.Context, suspects []suspect) (map[string]known, error) {
	ids, namespaces := keysOf(suspects)
	list, err := collect(ctx, m.store.conn, pgx.RowToStructByPos[pendingState], "read pending actions", `
		select i.id, coalesce(md5(to_jsonb(p)::text), ''), outbox_lane(coalesce(p.namespace, i.namespace)),
		       exists (select from repairs r where r.peer = $3 and r.subject = 'pending' and r.key = i.id`+notOurs+`)
		from unnest($1::text[], $2::text[]) i (id, namespace)
		left join pending_actions p on p.id = i.id`, ids, namespaces, m.store.peer)
	if err != nil {
		return nil, err
	}
	states := make(map[string]known, len(list))
	for _, p := range list {
		states[p.ID] = known{Stamp: p.Stamp, Lane: p.Lane, Repairing: p.Repairing}
	}
	return states, nil
}

// look reads the lists of the suspects' namespaces and compares what is on them; what is not, is missing.
func (m *pendings) look(ctx context.Context, suspects []suspect) (map[string][]Difference, error) {
	differences := make(map[string][]Difference, len(suspects))
	byNamespace := map[string]map[string]bool{}
	for _, s := range suspects {
		if byNamespace[s.Namespace] == nil {
			byNamespace[s.Namespace] = map[string]bool{}
		}
		byNamespace[s.Namespace][s.Key] = true
	}
	for namespace, wanted := range byNamespace {
		if err := m.list(ctx, namespace, wanted, differences); err != nil {
			return nil, err
		}
		for id := range wanted {
			if _, compared := differences[id]; !compared {
				differences[id] = []Difference{{Kind: KindPending, Key: id, Namespace: namespace, Fields: []string{"id"}}}
			}
		}
	}
	return differences, nil
}

func (m *pendings) list(ctx context.Context, namespace string, wanted map[string]bool, differences map[string][]Difference) error {
	g := pager[peer.StoredPending]{
		read: m.peer.reader.Pendings,
		key:  func(p peer.StoredPending) string { return p.ID },
		page: peer.Page{Namespace: namespace, Limit: peer.MaxPage, AsAgent: m.options.AsAgent},
	}
	for {
		list, err := g.next(ctx, &m.peer)
		if err != nil {
			return err
		}
		ours := slices.DeleteFunc(list, func(p peer.StoredPending) bool { return !wanted[p.ID] })
		short := len(list) < g.page.Limit
		for part := range slices.Chunk(ours, pendingsAtOnce) {
			if err := m.compare(ctx, part, differences); err != nil {
				return err
			}
		}
		if short {
			return nil
		}
	}
}

func (m *pendings) compare(ctx context.Context, theirs []peer.StoredPending, differences map[string][]Difference) error {
	byID := map[string]peer.StoredPending{}
	ids := make([]string, len(theirs))
	for i, p := range theirs {
		ids[i], byID[p.ID] = p.ID, p
	}
	rows, err := collect(ctx, m.store.conn, pgx.RowToStructByPos[pendingRow], "read pending actions", `
		select p.id, p.action_type, coalesce(p.memory_id, ''), p.namespace, p.payload::text, p.requested_by, memory_time(p.requested_at),
		       p.status, coalesce(p.decided_by, ''), p.approvals::text
		from pending_actions p
		where p.id = any ($1)`, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		differences[id] = nil // one that is not the store's any more is none
	}
	for _, ours := range rows {
		if fields := differentPending(ours, byID[ours.ID]); fields != nil {
			differences[ours.ID] = []Difference{{Kind: KindPending, Key: ours.ID, Namespace: ours.Namespace, Fields: fields}}
		}
	}
	return nil
}

func differentPending(ours pendingRow, theirs peer.StoredPending) []string {
	var fields []string
	for _, field := range []struct{ name, ours, theirs string }{
		{"action_type", ours.ActionType, theirs.ActionType},
		{"memory_id", ours.MemoryID, theirs.MemoryID},
		{"namespace", ours.Namespace, theirs.Namespace},
		{"requested_by", ours.RequestedBy, theirs.RequestedBy},
		{"requested_at", ours.RequestedAt, theirs.RequestedAt},
		{"status", ours.Status, theirs.Status},
		{"decided_by", ours.DecidedBy, theirs.DecidedBy},
	} {
		if field.ours != field.theirs {
			fields = append(fields, field.name)
		}
	}
	if !jsonsame.Texts(ours.Payload, theirs.Payload) {
		fields = append(fields, "payload")
	}
	if !jsonsame.Texts(ours.Approvals, orEmpty(theirs.Approvals, "[]")) {
		fields = append(fields, "approvals")
	}
	return fields
}
