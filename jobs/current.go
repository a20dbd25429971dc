package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

// subjectKind says what a subject is.
type subjectKind string

const (
	aMemory    subjectKind = "memory"
	aPending   subjectKind = "pending"
	aNamespace subjectKind = "namespace"
)

// method says how a peer's copy of a subject is brought to the store's state.
type method string

const (
	// storeAgain writes what the store has: enough where the peer may have lost a memory, or may have one that is deleted.
	storeAgain method = "store"
	// renew deletes it first, archived or live, so that nothing of a former life is left: another title, a link, a field that receivers merge.
	renew method = "renew"
)

// subject is one thing of which peers have a copy.
type subject struct {
	Kind   subjectKind
	Key    string
	Method method
	Entry  int64 // of a memory that is in no table of ours: the log from this entry on is its state
}

// name is the subject without how it is repaired.
func (s subject) name() string { return string(s.Kind) + " " + s.Key }

// memoryState is what the store has of one memory.
type memoryState struct {
	id        string
	lane      int16
	known     bool // in one of our tables, if only as a tombstone
	live      []byte
	embedding []byte
	archived  []byte
	at        slot // of live
	archiveAt slot
}

// slot is what receivers key a memory by, besides its id.
type slot struct{ Namespace, Title string }

func (p slot) touch() string { return touchTitle(p.Namespace, p.Title) }

// current is what the store has of some subjects: all at one instant.
type current struct {
	memories  []*memoryState
	renewed   map[string]bool // ids that are deleted first
	guests    []string        // ids of memories that are no subjects
	links     []use           // of live memories that are renewed or stored again, both ends there
	standards []use           // namespaces whose standard is one of the memories, or that are subjects themselves
	cleared   []string        // namespaces without a standard
	pendings  []use
	decisions []use              // of actions that are in no table of ours
	subjectOf map[string]subject // by kind and key
}

func newCurrent() *current {
	return &current{renewed: map[string]bool{}, subjectOf: map[string]subject{}}
}

// use is an object that needs a memory, or a pending action.
type use struct {
	Key  string
	Of   string // the memory that it names
	And  string // a link's other end
	Body []byte
}

// loadCurrent reads the state of subjects in a transaction that should be repeatable read. Memories that have one of places by now, or the title of an archived
// one of the subjects, are added, and renewed, too: they may have been merged into a row that goes, and an archived one has to pass through its title.
func loadCurrent(ctx context.Context, tx pgx.Tx, subjects []subject, places []slot) (*current, error) {
	c := newCurrent()
	var ids, pendings, namespaces []string
	for _, s := range subjects {
		c.subjectOf[s.name()] = s
		switch s.Kind {
		case aMemory:
			ids = append(ids, s.Key)
			if s.Method == renew {
				c.renewed[s.Key] = true
			}
		case aPending:
			pendings = append(pendings, s.Key)
		case aNamespace:
			namespaces = append(namespaces, s.Key)
		}
	}
	steps := []func() error{
		func() error { return c.loadMemories(ctx, tx, ids) },
		func() error { return c.loadTakers(ctx, tx, places) },
		func() error { return c.loadForeign(ctx, tx) },
		func() error { return c.loadLinks(ctx, tx) },
		func() error { return c.loadStandards(ctx, tx, namespaces) },
		func() error { return c.loadPendings(ctx, tx, pendings) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, fmt.Errorf("load the current state: %w", err)
		}
	}
	return c, nil
}

func (c *current) loadMemories(ctx context.Context, tx pgx.Tx, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		select i.id, coalesce(outbox_lane(coalesce(m.namespace, a.namespace)), t.lane, 0),
		       m.id is not null or a.id is not null or t.id is not null,
		       memory_json(m)::text, case when e.memory_id is not null then embedding_wire(e.memory_id, e.model, e.vector)::text end, coalesce(m.namespace, ''), coalesce(m.title, ''),
		       memory_json(jsonb_populate_record(null::memories, to_jsonb(a)))::text, coalesce(a.namespace, ''), coalesce(a.title, '')
		from unnest($1::text[]) i (id)
		left join memories m on m.id = i.id
		left join memory_embeddings e on e.memory_id = m.id
		left join archived_memories a on a.id = i.id
		left join tombstones t on t.id = i.id
		order by i.id`, ids)
	if err != nil {
		return err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*memoryState, error) {
		m := &memoryState{}
		err := row.Scan(&m.id, &m.lane, &m.known, &m.live, &m.embedding, &m.at.Namespace, &m.at.Title, &m.archived, &m.archiveAt.Namespace, &m.archiveAt.Title)
		if m.at == (slot{}) {
			m.live, m.embedding = nil, nil
		}
		if m.archiveAt == (slot{}) {
			m.archived = nil
		}
		return m, err
	})
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.archived != nil {
			c.renewed[m.id] = true // the archived copy is made anew
		}
	}
	c.memories = append(c.memories, list...)
	return nil
}

// loadTakers adds the live memories that have one of places, or the title of an archived one, by now.
func (c *current) loadTakers(ctx context.Context, tx pgx.Tx, places []slot) error {
	var archived []slot
	for _, m := range c.memories {
		if m.archived != nil && m.archiveAt != m.at {
			archived = append(archived, m.archiveAt)
		}
	}
	for _, at := range [][]slot{places, archived} {
		takers, err := holders(ctx, tx, at)
		if err != nil {
			return err
		}
		var more []string
		for _, id := range takers {
			if !slices.ContainsFunc(c.memories, func(m *memoryState) bool { return m.id == id }) {
				more = append(more, id)
			}
		}
		c.guests = append(c.guests, more...)
		if err := c.loadMemories(ctx, tx, more); err != nil {
			return err
		}
	}
	takers, err := holders(ctx, tx, archived)
	for _, id := range takers {
		c.renewed[id] = true
	}
	return err
}

// holders are the live memories that have the places, each once.
func holders(ctx context.Context, tx pgx.Tx, places []slot) ([]string, error) {
	if len(places) == 0 {
		return nil, nil
	}
	var namespaces, titles []string
	for _, p := range places {
		namespaces, titles = append(namespaces, p.Namespace), append(titles, p.Title)
	}
	rows, err := tx.Query(ctx, `
		select distinct m.id
		from unnest($1::text[], $2::text[]) a (namespace, title)
		join memories m on m.namespace = a.namespace and md5(m.title) = md5(a.title) and m.title = a.title
		order by m.id`, namespaces, titles)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// loadForeign reads from the log what the memories are of which no table of ours knows: an application keeps them in tables of its own
// (outbox_append). One of which the log, from the entry that the subject names, says nothing any more is left as it is; one without such an entry is
// nobody's, and goes.
func (c *current) loadForeign(ctx context.Context, tx pgx.Tx) error {
	for _, m := range c.memories {
		s := c.subjectOf[subject{Kind: aMemory, Key: m.id}.name()]
		if m.known || s.Kind == "" {
			continue
		}
		entries := map[int64]entry{}
		err := queryEntries(ctx, tx, entries, `o.id = (
			select max(o.id) from outbox o
			where o.id >= $1 and (o.kind in ('store', 'delete', 'archive', 'restore', 'consolidate') and o.key = any ($2) or `+consolidated+`))`,
			s.Entry, []string{m.id})
		if err != nil {
			return err
		}
		if len(entries) == 0 && s.Entry == 0 {
			m.known = true // nobody has it
		}
		for _, e := range entries {
			m.known, m.lane = true, e.Lane
			m.become(e)
		}
	}
	c.memories = slices.DeleteFunc(c.memories, func(m *memoryState) bool { return !m.known })
	return nil
}

// become is the state after the last entry of the memory's life.
func (m *memoryState) become(e entry) {
	title, _ := titleOf(e.Payload)
	switch e.Kind {
	case outbox.KindStore, outbox.KindRestore:
		m.live, m.embedding, m.at = e.Payload, e.Embedding, slot{e.Namespace, title}
	case outbox.KindConsolidate:
		var p struct{ Memory json.RawMessage }
		_ = json.Unmarshal(e.Payload, &p)
		if e.Key == m.id { // otherwise it is one of the sources, and gone
			title, _ = titleOf(p.Memory)
			m.live, m.embedding, m.at = p.Memory, e.Embedding, slot{e.Namespace, title}
		}
	case outbox.KindArchive:
		m.archived, m.archiveAt = e.Payload, slot{e.Namespace, title}
	case outbox.KindDelete, outbox.KindLink, outbox.KindPending, outbox.KindDecision, outbox.KindNamespaceSet, outbox.KindNamespaceClear:
	}
}

// liveIDs are the memories that are written, and so may lack their links at the peer.
func (c *current) liveIDs() []string {
	var ids []string
	for _, m := range c.memories {
		if m.live != nil {
			ids = append(ids, m.id)
		}
	}
	return ids
}

const (
	linksOf = `
		select l.source_id || l.target_id, l.source_id, l.target_id, link_json(l)::text
		from memory_links l
		where l.source_id = any ($1) or l.target_id = any ($1)
		order by l.source_id, l.target_id, l.relation`
	standardsOf = `
		select n.namespace, n.standard_id, '', namespace_json(n)::text
		from namespace_meta n
		where n.standard_id = any ($1) or n.namespace = any ($2)
		order by n.namespace`
)

func (c *current) loadLinks(ctx context.Context, tx pgx.Tx) (err error) {
	c.links, err = queryUses(ctx, tx, linksOf, c.liveIDs())
	return err
}

func (c *current) loadStandards(ctx context.Context, tx pgx.Tx, namespaces []string) (err error) {
	if c.standards, err = queryUses(ctx, tx, standardsOf, c.liveIDs(), namespaces); err != nil {
		return err
	}
	for _, ns := range namespaces {
		if !slices.ContainsFunc(c.standards, func(u use) bool { return u.Key == ns }) {
			c.cleared = append(c.cleared, ns)
		}
	}
	return nil
}

func (c *current) loadPendings(ctx context.Context, tx pgx.Tx, ids []string) (err error) {
	if len(ids) == 0 {
		return nil
	}
	c.pendings, err = queryUses(ctx, tx, `
		select p.id, coalesce(p.memory_id, ''), '', pending_json(p)::text from pending_actions p where p.id = any ($1) order by p.id`, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if slices.ContainsFunc(c.pendings, func(u use) bool { return u.Key == id }) {
			continue
		}
		// In tables of an application's own: the log has the action and what was decided.
		s := c.subjectOf[subject{Kind: aPending, Key: id}.name()]
		entries := map[int64]entry{}
		if err := queryEntries(ctx, tx, entries, `o.id >= $1 and o.kind in ('pending', 'decision') and o.key = $2`, s.Entry, id); err != nil {
			return err
		}
		for _, e := range entries {
			if e.Kind == outbox.KindPending {
				c.pendings = append(c.pendings, use{Key: id, Body: e.Payload})
				continue
			}
			body, _, _ := decisionOf(e.Payload)
			c.decisions = append(c.decisions, use{Key: id, Body: body})
		}
	}
	return nil
}

func queryUses(ctx context.Context, tx querier, sql string, args ...any) ([]use, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[use])
}

// changedSince reports whether a memory got other links, or became another namespace's standard, since c was loaded: what another lane pushed
// meanwhile may have gone with the deletion of a renewed one, and a link that has ended since may have come after its end.
func (c *current) changedSince(ctx context.Context, tx pgx.Tx) (bool, error) {
	ids := c.liveIDs()
	if len(ids) == 0 {
		return false, nil
	}
	links, err := queryUses(ctx, tx, linksOf, ids)
	if err != nil {
		return false, fmt.Errorf("look for new links: %w", err)
	}
	standards, err := queryUses(ctx, tx, standardsOf, ids, []string{})
	if err != nil {
		return false, fmt.Errorf("look for new standards: %w", err)
	}
	return !slices.EqualFunc(links, c.links, sameUse) || len(c.renewed) > 0 && slices.ContainsFunc(standards, func(u use) bool {
		return !slices.ContainsFunc(c.standards, func(old use) bool { return sameUse(u, old) })
	}), nil
}

// staleStandards are the namespaces whose standard is another one, or none, since c was loaded.
func (c *current) staleStandards(ctx context.Context, tx pgx.Tx) (stale []string, err error) {
	if len(c.standards) == 0 {
		return nil, nil
	}
	var namespaces []string
	for _, n := range c.standards {
		namespaces = append(namespaces, n.Key)
	}
	now, err := queryUses(ctx, tx, standardsOf, []string{}, namespaces)
	if err != nil {
		return nil, fmt.Errorf("look for changed standards: %w", err)
	}
	for _, old := range c.standards {
		if !slices.ContainsFunc(now, func(u use) bool { return sameUse(u, old) }) {
			stale = append(stale, old.Key)
		}
	}
	return stale, nil
}

func sameUse(a, b use) bool { return a.Key == b.Key && a.Of == b.Of && a.And == b.And }

// items are what brings a peer to the state that has nothing of the memories that clear takes away, in the order in which it is to be applied. The entries in them stand for the subjects:
// their ids are 1 and up, by owners. Links have none: one is refused while its other end is missing, and whatever brings that brings the link.
func (c *current) items() (items []item, owners map[int64]subject) {
	owners = map[int64]subject{}
	numbered := func(kind subjectKind, key string) entry {
		s, ok := c.subjectOf[subject{Kind: kind, Key: key}.name()]
		if !ok { // it comes along, and must not be lost either
			s = subject{Kind: kind, Key: key, Method: renew}
		}
		id := int64(len(owners) + 1)
		owners[id] = s
		return entry{ID: id, Key: key}
	}
	others := int64(0)
	unnumbered := func(key string) entry {
		others--
		return entry{ID: others, Key: key}
	}
	var away, live []item
	for _, m := range c.memories {
		e := numbered(aMemory, m.id)
		if m.archived != nil {
			row := []string{touchID(m.id), m.archiveAt.touch()}
			away = append(away,
				item{list: memories, key: m.id, body: m.archived, entry: e, touches: row},
				item{list: archives, key: m.id, entry: e, touches: row})
		}
		if m.live != nil {
			live = append(live, item{list: memories, key: m.id, body: m.live, embedding: m.embedding, entry: e, touches: []string{touchID(m.id), m.at.touch()}})
		}
	}
	items = slices.Concat(away, live)
	for _, l := range c.links {
		items = append(items, item{list: links, key: l.Key, body: l.Body, entry: unnumbered(l.Key), touches: []string{touchID(l.Of), touchID(l.And)}})
	}
	for _, n := range c.standards {
		items = append(items, item{
			list: namespaceMeta, key: n.Key, body: n.Body, entry: numbered(aNamespace, n.Key), touches: []string{touchNamespace(n.Key), touchID(n.Of)},
		})
	}
	for _, p := range c.pendings {
		items = append(items, item{list: pendings, key: p.Key, body: p.Body, entry: numbered(aPending, p.Key), touches: []string{touchPending(p.Key)}})
	}
	for _, d := range c.decisions {
		items = append(items, item{list: decisions, key: d.Key, body: d.Body, entry: unnumbered(d.Key), touches: []string{touchPending(d.Key)}})
	}
	for _, ns := range c.cleared {
		items = append(items, item{list: namespaceClears, key: ns, entry: numbered(aNamespace, ns), touches: []string{touchNamespace(ns)}})
	}
	return items, owners
}

// bring pushes the state. The entries of what is refused are subjects: owners says which.
func (c *current) bring(ctx context.Context, to Pusher, peerID string, how isolation, senderID string, most limits) (d delivery, owners map[int64]subject) {
	items, owners := c.items()
	s := shipment{senderID: senderID}
	for _, part := range cut(items, most) {
		s.pushes = append(s.pushes, load{part, request(part, senderID)})
	}
	inDoubt, err := c.clear(ctx, to, peerID, senderID, most)
	if err != nil {
		return delivery{shipment: s, peer: peerID, how: how, err: err, inDoubt: inDoubt}, owners
	}
	d = s.send(ctx, to, peerID, how)
	d.inDoubt = d.inDoubt || inDoubt
	return d, owners
}

// clearRounds bounds how often clear begins anew.
const clearRounds = 10

// clear takes from the peer the memories that are not there, and whatever it has of the renewed ones. An archived copy can only be taken away by restoring it and deleting that (the protocol has
// nothing else), and a restore is skipped while another memory has its title: of several archived copies with one title, each round takes one.
func (c *current) clear(ctx context.Context, to Pusher, peerID, senderID string, most limits) (inDoubt bool, err error) {
	push := func(m peer.Message) error {
		report, err := to.Push(ctx, peerID, peer.Request{Body: m.Encode(senderID), Catchup: peer.CatchupBulk})
		inDoubt = inDoubt || report.InDoubt || peer.OutcomeOf(err) == peer.Unknown
		return err
	}
	all := slices.Sorted(maps.Keys(c.renewed))
	var gone []string
	for _, m := range c.memories {
		if m.live == nil && !c.renewed[m.id] {
			gone = append(gone, m.id)
		}
	}
	if len(gone) > 0 || len(all) > most.items { // otherwise the first round does it
		for ids := range slices.Chunk(append(gone, all...), most.items) {
			if err := push(peer.Message{Deletions: ids}); err != nil {
				return inDoubt, err
			}
		}
	}
	for ids := range slices.Chunk(all, most.items) {
		for round := 1; ; round++ {
			err := push(peer.Message{Deletions: ids, Restores: ids})
			skipped := peer.ClassOf(err) == peer.ClassSkipped
			if err != nil && !skipped {
				return inDoubt, err
			}
			if err := push(peer.Message{Deletions: ids}); err != nil {
				return inDoubt, err
			}
			if !skipped || round == clearRounds {
				break
			}
		}
	}
	return inDoubt, nil
}
