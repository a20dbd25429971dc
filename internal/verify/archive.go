package verify

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// compareArchive compares which memories are archived. What each archived copy holds is not: a peer's is what it had merged.
func (r *run) compareArchive(ctx context.Context) error {
	if err := r.store.forget(ctx); err != nil {
		return err
	}
	m := &archive{run: r}
	var suspects []suspect
	err := m.each(ctx, func(page []peer.ArchivedMemory) error {
		more, err := m.extra(ctx, page)
		suspects = append(suspects, more...)
		return err
	})
	switch {
	case errors.Is(err, errRepeats):
		r.note("the peer does not page through its archive: it is not compared")
		return nil
	case refused(err):
		r.note("the peer does not show its archive to this agent: the archive is not compared (see --as)")
		return nil
	case err != nil:
		return err
	}
	if err := r.store.analyze(ctx); err != nil {
		return err
	}
	if suspects, err = m.missing(ctx, suspects); err != nil {
		return err
	}
	return r.settle(ctx, m, suspects, r.found(ctx, ofArchive))
}

// mostArchiveSuspects bounds what is looked at again: each round reads the peer's whole archive once. The rest is unsettled.
const mostArchiveSuspects = 10_000

// archive is the matter of archived memories.
type archive struct {
	*run
	rows map[string]row
}

// each hands the peer's archive to take, page by page.
func (m *archive) each(ctx context.Context, take func([]peer.ArchivedMemory) error) error {
	g := pager[peer.ArchivedMemory]{
		read: m.peer.reader.Archive,
		key:  func(a peer.ArchivedMemory) string { return a.ID },
		page: peer.Page{Limit: peer.MaxPage, AsAgent: m.options.AsAgent},
	}
	var done int64
	for {
		list, err := g.next(ctx, &m.peer)
		if err != nil {
			return err
		}
		done += int64(len(list))
		m.progress("archive", done, 0)
		short := len(list) < g.page.Limit
		list = slices.DeleteFunc(list, func(a peer.ArchivedMemory) bool {
			return !isID(a.ID) || len(m.options.Namespaces) > 0 && !slices.Contains(m.options.Namespaces, a.Namespace)
		})
		if err := take(list); err != nil || short {
			return err
		}
	}
}

// extra notes a page as shown and returns what the store has live, or had, and not archived. Other memories are the peer's own.
func (m *archive) extra(ctx context.Context, page []peer.ArchivedMemory) ([]suspect, error) {
	var suspects []suspect
	for part := range slices.Chunk(page, rowsAtOnce) {
		ids, namespaces := make([]string, len(part)), make([]string, len(part))
		for i, a := range part {
			ids[i], namespaces[i] = a.ID, a.Namespace
			if !isNamespace(a.Namespace) {
				namespaces[i] = ""
			}
		}
		if _, err := m.store.show(ctx, ids); err != nil {
			return nil, err
		}
		rows, err := m.store.rows(ctx, ids, namespaces)
		if err != nil {
			return nil, err
		}
		for i, id := range ids {
			if differentArchive(rows[id], true) != nil {
				suspects = append(suspects, suspect{Key: id, Namespace: namespaces[i]})
			}
		}
	}
	return suspects, nil
}

// missing adds what the store has archived and the peer has not shown.
func (m *archive) missing(ctx context.Context, suspects []suspect) ([]suspect, error) {
	for after := ""; ; {
		list, err := collect(ctx, m.store.conn, pgx.RowToStructByPos[struct{ ID, Namespace string }], "look for what is not archived", `
			select a.id, a.namespace
			from archived_memories a
			where a.id > $1 and (cardinality($2::text[]) = 0 or a.namespace = any ($2))
			  and not exists (select from verify_shown s where s.key = a.id)
			order by a.id
			limit $3`, after, filled(m.options.Namespaces), peer.MaxPage)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			after = a.ID
			suspects = append(suspects, suspect{Key: a.ID, Namespace: a.Namespace})
		}
		switch over := len(suspects) - mostArchiveSuspects; {
		case over > 0:
			m.report.Unsettled += int64(over)
			m.note("the archives differ in more than 10000 memories: the others were not looked at; compare again after a repair")
			return suspects[:mostArchiveSuspects], nil
		case len(list) == 0:
			return suspects, nil
		}
	}
}

func (m *archive) state(ctx context.Context, suspects []suspect) (map[string]known, error) {
	m.rows = make(map[string]row, len(suspects))
	states := make(map[string]known, len(suspects))
	for part := range slices.Chunk(suspects, rowsAtOnce) {
		ids, namespaces := keysOf(part)
		rows, err := m.store.rows(ctx, ids, namespaces)
		if err != nil {
			return nil, err
		}
		for id, ours := range rows {
			states[id] = ours.known()
			m.rows[id] = row{ID: id, Live: ours.Live, Archived: ours.Archived, Buried: ours.Buried, Expired: ours.Expired} // they may be many
		}
	}
	return states, nil
}

func (m *archive) look(ctx context.Context, suspects []suspect) (map[string][]Difference, error) {
	differences := make(map[string][]Difference, len(suspects))
	if len(suspects) == 0 {
		return differences, nil
	}
	shown := make(map[string]bool, len(suspects))
	for _, s := range suspects {
		shown[s.Key] = false
	}
	err := m.each(ctx, func(page []peer.ArchivedMemory) error {
		for _, a := range page {
			if _, wanted := shown[a.ID]; wanted {
				shown[a.ID] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range suspects {
		list := differentArchive(m.rows[s.Key], shown[s.Key])
		for i := range list {
			list[i].Key, list[i].Namespace = s.Key, s.Namespace
		}
		differences[s.Key] = list
	}
	return differences, nil
}

// differentArchive compares whether a memory is archived.
func differentArchive(ours row, shown bool) []Difference {
	switch {
	case ours.Archived && !shown:
		return []Difference{{Kind: KindNotArchived}}
	case !ours.Archived && shown && (ours.Live && !ours.Expired || ours.Buried): // peers archive what has expired
		return []Difference{{Kind: KindArchived}}
	default:
		return nil
	}
}
