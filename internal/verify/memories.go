package verify

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"quorumbox/internal/peer"
)

const (
	// rowsAtOnce bounds how many of the store's memories are in this process's memory: their metadata has up to 64 KiB each.
	rowsAtOnce = 100

	// extraPages is by how many pages a peer's list of a namespace may be longer than twice the store's. More is not looked at.
	extraPages = 10
)

// compareMemories compares the live memories of one namespace: first as the peer lists them, as those who may see them; then one by one what
// no list showed.
func (r *run) compareMemories(ctx context.Context, namespace string) error {
	if err := r.store.forget(ctx); err != nil {
		return err
	}
	authors, total, err := r.store.authors(ctx, namespace)
	if err != nil {
		return err
	}
	c := &memoryCheck{run: r, namespace: namespace}
	for _, agent := range r.listers(authors, total) {
		if err := c.list(ctx, agent, total); err != nil {
			return err
		}
	}
	if total > rowsAtOnce {
		if err := r.store.analyze(ctx); err != nil {
			return err
		}
	}
	if err := c.hidden(ctx); err != nil {
		return err
	}
	return c.flush(ctx)
}

// listers are the agents as whom a namespace is listed: the one who asks, those named by the operator, and those of whom a list shows more private
// memories than it costs requests.
func (r *run) listers(authors []author, total int64) []string {
	agents := append([]string{r.options.AsAgent}, r.options.Agents...)
	for _, a := range authors {
		if pages := total/peer.MaxPage + 1; a.Private > pages && isAgent(a.Agent) {
			agents = append(agents, a.Agent)
		}
	}
	slices.Sort(agents)
	return slices.Compact(agents)
}

// memoryCheck compares the memories of one namespace.
type memoryCheck struct {
	*run
	namespace string
	suspects  []suspect
}

// list compares what the peer shows to an agent.
func (c *memoryCheck) list(ctx context.Context, agent string, total int64) error {
	g := pager[peer.StoredMemory]{
		read: c.peer.reader.Memories,
		key:  func(m peer.StoredMemory) string { return m.ID },
		page: peer.Page{Namespace: c.namespace, Limit: peer.MaxPage, AsAgent: agent},
	}
	for {
		asked := int64(g.page.Offset)
		list, err := g.next(ctx, &c.peer)
		switch {
		case errors.Is(err, errRepeats):
			c.note("the peer does not page through its memories: what is extra there may not be found")
			return nil
		case err != nil:
			return err
		case asked > 2*total+extraPages*peer.MaxPage:
			c.note("the peer lists many more memories than the store has: not all were looked at")
			return nil
		}
		if err := c.page(ctx, list, agent); err != nil {
			return err
		}
		// The page was cut before what the agent may not see was left out. Behind twice the store's size a short one is taken for the end.
		if end := int64(g.page.Offset); len(list) == 0 && end >= total || len(list) < g.page.Limit && end >= 2*total {
			return nil
		}
	}
}

// page compares a page with the store.
func (c *memoryCheck) page(ctx context.Context, list []peer.StoredMemory, agent string) error {
	shown := make(map[string]peer.StoredMemory, len(list))
	for _, m := range list {
		if isID(m.ID) {
			shown[m.ID] = m
		} else {
			c.note("the peer has memories with ids that no receiver accepts: they are not compared")
		}
	}
	ids := make([]string, 0, len(shown))
	for id := range shown {
		ids = append(ids, id)
	}
	fresh, err := c.store.show(ctx, ids)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(fresh, rowsAtOnce) {
		ours, err := c.store.rows(ctx, part, slices.Repeat([]string{c.namespace}, len(part)))
		if err != nil {
			return err
		}
		for _, id := range part {
			if ours[id].Live && ours[id].Namespace == c.namespace {
				c.compared(ours[id].Expired)
			}
			if differ(ours[id], shown[id], true) != nil {
				c.suspects = append(c.suspects, suspect{Key: id, Namespace: c.namespace, Agent: agent})
			}
		}
		if err := c.flushMany(ctx); err != nil {
			return err
		}
	}
	return nil
}

// compared counts a memory of the store.
func (c *memoryCheck) compared(expired bool) {
	c.report.Memories++
	if expired {
		c.report.Expired++
	}
	c.progress("memories", c.report.Memories, c.total)
}

// hidden asks for each memory that no list showed.
func (c *memoryCheck) hidden(ctx context.Context) error {
	for after := ""; ; {
		list, err := c.store.hidden(ctx, c.namespace, after, rowsAtOnce)
		if err != nil || len(list) == 0 {
			return err
		}
		var asked []suspect
		for _, h := range list {
			after = h.Title
			c.compared(h.Expired)
			switch {
			case h.Expired:
			case !isID(h.ID), h.Private && !isAgent(h.Agent):
				c.report.Unreadable++
			case h.Private:
				asked = append(asked, suspect{Key: h.ID, Namespace: c.namespace, Agent: h.Agent})
			default:
				asked = append(asked, suspect{Key: h.ID, Namespace: c.namespace, Agent: c.options.AsAgent})
			}
		}
		m := &memories{run: c.run}
		if _, err := m.state(ctx, asked); err != nil {
			return err
		}
		differences, err := m.look(ctx, asked)
		if err != nil {
			return err
		}
		for _, s := range asked {
			if differences[s.Key] != nil {
				c.suspects = append(c.suspects, s)
			}
		}
		if err := c.flushMany(ctx); err != nil {
			return err
		}
	}
}

func (c *memoryCheck) flushMany(ctx context.Context) error {
	if len(c.suspects) < settleAtOnce {
		return nil
	}
	return c.flush(ctx)
}

// flush settles what looked different.
func (c *memoryCheck) flush(ctx context.Context) error {
	suspects := c.suspects
	c.suspects = nil
	return c.settle(ctx, &memories{run: c.run}, suspects, c.found(ctx, ofMemories))
}

// differ compares a memory with the peer's, if it has one that is shown.
func differ(ours row, theirs peer.StoredMemory, shown bool) []Difference {
	d := Difference{Key: ours.ID, Namespace: ours.Namespace}
	switch {
	case ours.Expired && ours.Live, !ours.Live && !shown:
		return nil
	case ours.Live && !shown:
		d.Kind = KindMissing
	case ours.Live:
		if d.Fields = differentFields(ours, theirs); d.Fields == nil {
			return nil
		}
		d.Kind = KindDiffers
	case ours.Buried || ours.Archived:
		d.Kind = KindExtra
	default:
		d.Kind = KindUnknown
	}
	return []Difference{d}
}

// memories is the matter of live memories, asked for by id.
type memories struct {
	*run
	rows map[string]row
}

func (m *memories) state(ctx context.Context, suspects []suspect) (map[string]known, error) {
	m.rows = make(map[string]row, len(suspects))
	states := make(map[string]known, len(suspects))
	for part := range slices.Chunk(suspects, rowsAtOnce) {
		ids, namespaces := keysOf(part)
		rows, err := m.store.rows(ctx, ids, namespaces)
		if err != nil {
			return nil, err
		}
		for id, ours := range rows {
			m.rows[id], states[id] = ours, ours.known()
		}
	}
	return states, nil
}

func (m *memories) look(ctx context.Context, suspects []suspect) (map[string][]Difference, error) {
	differences := make(map[string][]Difference, len(suspects))
	for _, s := range suspects {
		ours := m.rows[s.Key]
		theirs, shown, err := m.one(ctx, s.Key, s.Agent)
		if err == nil && !shown && ours.Live && isAgent(ours.Agent) && ours.Agent != s.Agent {
			theirs, shown, err = m.one(ctx, s.Key, ours.Agent) // the peer's copy may be private
		}
		if err != nil {
			return nil, err
		}
		list := differ(ours, theirs, shown)
		for i := range list {
			list[i].Key, list[i].Namespace = s.Key, cmp.Or(list[i].Namespace, s.Namespace)
		}
		differences[s.Key] = list
	}
	return differences, nil
}

// one asks for one memory.
func (m *memories) one(ctx context.Context, id, agent string) (theirs peer.StoredMemory, shown bool, err error) {
	theirs, err = ask(ctx, &m.peer, func(ctx context.Context) (found peer.StoredMemory, err error) {
		found, _, shown, err = m.peer.reader.Memory(ctx, id, agent)
		return found, err
	})
	return theirs, shown, err
}
