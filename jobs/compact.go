package jobs

import (
	"encoding/json"
	"slices"

	"quorumbox/outbox"
)

// change is an entry, or a part of one, as compaction looks at it.
type change struct {
	what      what
	id        string // of the memory or the pending action; for namespaces the standard's
	namespace string
	title     string
	untitled  bool // an end that does not say its title
	target    string
	body      []byte
	embedding []byte
	approved  bool
	renewed   bool // a store that was a restore: the receiver may have its row with a time of its own
	entry     entry
	segment   int // how many approved decisions come before it
}

type what uint8

const (
	stored   what = iota + 1
	deleted       // also the source of a consolidate
	archived      // body: what the memory was then
	restored      // body: what the memory is then
	removed       // by an action that the receiver executes
	linked        // id → target
	pending
	decided
	standardSet
	standardCleared
)

// ends reports whether the change ends a memory's life. A restore does, because it deletes what the receiver restored and stores it anew.
func (c change) ends() bool { return c.what > stored && c.what <= removed }

// compaction is the state of compact.
type compaction struct {
	changes  []change
	lives    map[string][]int // id → its stores, ends and restores, in order
	segments int
	early    []map[string]int // by segment: ids that are deleted at its beginning → the change whose doing that is
}

// compact leaves out of a range what the range itself supersedes, so that it can be applied over any of its own earlier tries:
//
//   - An id that is deleted in the range is deleted once, at the beginning, and its stores and links before that are not sent.
//   - Of several archives and restores of an id the last one counts. An archive is sent with the stores that led to it, or with a copy.
//   - A restored memory is restored, deleted and stored, because the receiver gives it a time of its own, by which later stores would lose
//     (wire.md 6.3, rule 6).
//   - An id that takes a title which an archived one had before is deleted first, because the other's stores would be merged into it.
//   - Of a namespace's standards the last one counts.
//
// An approved decision makes the receiver act, so that what comes after it stays after it: it ends a segment, and "the beginning" is that of the
// segment. Stores of a memory that lives on are all sent, in order, because receivers merge some fields.
func compact(entries []entry) []item {
	c := &compaction{lives: map[string][]int{}}
	for _, e := range entries {
		c.expand(e)
	}
	c.early = make([]map[string]int, c.segments+1)
	for s := range c.early {
		c.early[s] = map[string]int{}
	}
	c.demote()
	c.deleteEarly()
	c.deleteTakers()
	return c.emit()
}

// expand appends the changes that an entry makes. A payload that cannot be read (the writer's functions let none through) still becomes a change,
// so that the receiver refuses it and it is seen.
func (c *compaction) expand(e entry) {
	add := func(ch change) {
		ch.entry, ch.segment = e, c.segments
		if ch.what <= removed {
			c.lives[ch.id] = append(c.lives[ch.id], len(c.changes))
		}
		c.changes = append(c.changes, ch)
	}
	life := func(what what) change {
		title, ok := titleOf(e.Payload)
		return change{what: what, id: e.Key, namespace: e.Namespace, title: title, untitled: !ok, body: e.Payload, embedding: e.Embedding}
	}
	switch e.Kind {
	case outbox.KindStore:
		add(life(stored))
	case outbox.KindDelete:
		add(life(deleted))
	case outbox.KindArchive:
		add(life(archived))
	case outbox.KindRestore:
		add(life(restored))
	case outbox.KindConsolidate:
		var p struct {
			Memory  json.RawMessage
			Sources []struct{ ID, Namespace, Title string }
		}
		_ = json.Unmarshal(e.Payload, &p)
		for _, s := range p.Sources {
			add(change{what: deleted, id: s.ID, namespace: s.Namespace, title: s.Title})
		}
		title, _ := titleOf(p.Memory)
		add(change{what: stored, id: e.Key, namespace: e.Namespace, title: title, body: p.Memory, embedding: e.Embedding})
	case outbox.KindLink:
		var p struct {
			Source string `json:"source_id"`
			Target string `json:"target_id"`
		}
		_ = json.Unmarshal(e.Payload, &p)
		add(change{what: linked, id: p.Source, target: p.Target, body: e.Payload})
	case outbox.KindPending:
		add(change{what: pending, id: e.Key, body: e.Payload})
	case outbox.KindDecision:
		body, approved, deletes := decisionOf(e.Payload)
		add(change{what: decided, id: e.Key, body: body, approved: approved})
		if approved {
			c.segments++
		}
		if deletes != "" {
			add(change{what: removed, id: deletes})
		}
	case outbox.KindNamespaceSet:
		var p struct {
			Standard string `json:"standard_id"`
		}
		_ = json.Unmarshal(e.Payload, &p)
		add(change{what: standardSet, id: p.Standard, namespace: e.Namespace, body: e.Payload})
	case outbox.KindNamespaceClear:
		add(change{what: standardCleared, namespace: e.Namespace})
	}
}

// decisionOf is a decision as it is sent, and the memory that the receiver deletes when it executes it, which only the log says.
func decisionOf(payload []byte) (body []byte, approved bool, deletes string) {
	var p struct {
		ID       string `json:"id"`
		Approved bool   `json:"approved"`
		Decider  string `json:"decider"`
	}
	var hidden struct{ Deletes string }
	if json.Unmarshal(payload, &p) != nil || json.Unmarshal(payload, &hidden) != nil || hidden.Deletes == "" {
		return payload, p.Approved, ""
	}
	body, err := json.Marshal(struct {
		Approved bool   `json:"approved"`
		Decider  string `json:"decider"`
		ID       string `json:"id"`
	}{p.Approved, p.Decider, p.ID})
	if err != nil {
		return payload, p.Approved, hidden.Deletes // cannot be: two texts and a truth
	}
	return body, p.Approved, hidden.Deletes
}

// titleOf is the title of a memory, or ok = false if the payload does not say it.
func titleOf(payload []byte) (title string, ok bool) {
	var p struct{ Title *string }
	if len(payload) == 0 || json.Unmarshal(payload, &p) != nil || p.Title == nil {
		return "", false
	}
	return *p.Title, true
}

// demote lets the last archive or restore of each id count: an earlier archive only deletes, and an earlier restore only stores. The archive that
// the last restore takes back stays, because the receiver may have an older one whose title is taken by now.
func (c *compaction) demote() {
	for _, life := range c.lives {
		later := change{}
		for _, i := range slices.Backward(life) {
			ch := &c.changes[i]
			switch {
			case ch.what != archived && ch.what != restored:
				continue
			case later.what == 0, later.what == restored && ch.what == archived:
				later = *ch
			case ch.what == archived:
				ch.what = deleted
			default:
				ch.what, ch.renewed = stored, true
			}
		}
	}
}

// nextEnd is the first change after i that ends the memory's life, or -1.
func (c *compaction) nextEnd(id string, i int) int {
	for _, j := range c.lives[id] {
		if j > i && c.changes[j].ends() {
			return j
		}
	}
	return -1
}

// sent reports whether a store, or the new life that a restore begins, is sent: nothing ends it, or an archive does, for which it has to be there.
func (c *compaction) sent(i int) bool {
	end := c.nextEnd(c.changes[i].id, i)
	return end < 0 || c.changes[end].what == archived
}

// deleteEarly notes what is deleted at the beginning of a segment.
func (c *compaction) deleteEarly() {
	for id, life := range c.lives {
		for _, i := range life {
			switch ch := c.changes[i]; {
			case ch.what == deleted, ch.renewed:
				c.early[ch.segment][id] = i
			case ch.what == archived && c.livesAfter(id, i):
				// Applied again, the archive would take the later life along.
				c.early[c.changes[c.firstSent(id, i)].segment][id] = i
			}
		}
	}
}

// livesAfter reports whether the memory is, or may be, there again after its archive i: by a store, a restore, or an action that the receiver executes.
func (c *compaction) livesAfter(id string, i int) bool {
	if c.changes[i].segment < c.segments {
		return true
	}
	return slices.ContainsFunc(c.lives[id], func(j int) bool {
		return j > i && (c.changes[j].what == restored || c.changes[j].what == stored)
	})
}

// firstSent is the first store that is sent for the archive i, or i if there is none.
func (c *compaction) firstSent(id string, i int) int {
	for _, j := range c.lives[id] {
		if j < i && c.changes[j].what == stored && c.nextEnd(id, j) == i {
			return j
		}
	}
	return i
}

// deleteTakers notes the ids that come to a title in this range which another one leaves before: when the range is applied again they are there
// already, and what is sent for the other one would be merged into them. They are new in this range or were renamed in it, so that
// all that hangs on them is sent again, too.
func (c *compaction) deleteTakers() {
	type leaver struct {
		id string
		at int
	}
	left := map[string][]leaver{}
	for i, ch := range c.changes {
		if ch.what == archived && (c.firstSent(ch.id, i) != i || c.storesCopy(i)) || ch.what == deleted && c.segments > 0 {
			title := touchTitle(ch.namespace, ch.title)
			left[title] = append(left[title], leaver{ch.id, i})
		}
	}
	for i, ch := range c.changes {
		if ch.what != stored && ch.what != restored {
			continue
		}
		others := left[touchTitle(ch.namespace, ch.title)]
		if slices.ContainsFunc(others, func(l leaver) bool { return l.id != ch.id && l.at < i }) {
			c.early[0][ch.id] = i
		}
	}
}

// storesCopy reports whether the archive i has to bring the memory with it: the one that the receiver had was deleted early.
func (c *compaction) storesCopy(i int) bool {
	ch := c.changes[i]
	first := c.firstSent(ch.id, i)
	_, gone := c.early[ch.segment][ch.id]
	if !gone {
		return false
	}
	for _, j := range c.lives[ch.id] {
		if j >= first && j < i && c.changes[j].what == stored && c.changes[j].segment == ch.segment {
			return false
		}
	}
	return true
}

// emit returns what is sent, segment by segment.
func (c *compaction) emit() []item {
	items := make([]item, 0, len(c.changes))
	standards := c.lastStandards()
	next := 0
	for s := range c.early {
		items = append(items, c.earlyItems(s)...)
		for ; next < len(c.changes) && c.changes[next].segment == s; next++ {
			items = append(items, c.items(next, standards)...)
		}
	}
	return items
}

// lastStandards is the last change of each namespace's standard.
func (c *compaction) lastStandards() map[string]int {
	last := map[string]int{}
	for i, ch := range c.changes {
		if ch.what == standardSet || ch.what == standardCleared {
			last[ch.namespace] = i
		}
	}
	return last
}

func (c *compaction) earlyItems(segment int) []item {
	ids := make([]string, 0, len(c.early[segment]))
	for id := range c.early[segment] {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return c.early[segment][a] - c.early[segment][b] })
	items := make([]item, 0, len(ids))
	for _, id := range ids {
		items = append(items, c.deletion(id, c.changes[c.early[segment][id]].entry))
	}
	return items
}

// deletion deletes an id, which may have had any of its titles.
func (c *compaction) deletion(id string, e entry) item {
	it := item{list: deletions, key: id, entry: e, touches: []string{touchID(id)}}
	for _, i := range c.lives[id] {
		switch ch := c.changes[i]; {
		case ch.what == removed: // under the title that it has
		case ch.untitled:
			it.touches = append(it.touches, touchTitles(ch.namespace))
		default:
			it.touches = append(it.touches, touchTitle(ch.namespace, ch.title))
		}
	}
	return it
}

// items is what is sent for change i.
func (c *compaction) items(i int, standards map[string]int) []item {
	ch := c.changes[i]
	row := []string{touchID(ch.id), touchTitle(ch.namespace, ch.title)}
	memory := item{
		list: memories, key: ch.id, body: ch.body, embedding: ch.embedding, entry: ch.entry,
		touches: append(row, touchTitles(ch.namespace)),
	}
	switch ch.what {
	case stored:
		if c.sent(i) {
			return []item{memory}
		}
	case deleted, removed: // at the beginning of the segment, or by the receiver itself
	case archived:
		away := item{list: archives, key: ch.id, entry: ch.entry, touches: row}
		if c.storesCopy(i) {
			return []item{memory, away}
		}
		return []item{away}
	case restored:
		// Applied twice, a push would find the restored memory where another one of it takes the same title.
		back := item{list: restores, key: ch.id, entry: ch.entry, touches: row, apart: row[1:]}
		if c.sent(i) {
			return []item{back, c.deletion(ch.id, ch.entry), memory}
		}
		return []item{back, c.deletion(ch.id, ch.entry)}
	case linked:
		if c.nextEnd(ch.id, i) < 0 && c.nextEnd(ch.target, i) < 0 {
			return []item{{list: links, key: ch.entry.Key, body: ch.body, entry: ch.entry, touches: []string{touchID(ch.id), touchID(ch.target)}}}
		}
	case pending:
		return []item{{list: pendings, key: ch.id, body: ch.body, entry: ch.entry, touches: []string{touchPending(ch.id)}}}
	case decided:
		return []item{{
			list: decisions, key: ch.id, body: ch.body, entry: ch.entry, touches: []string{touchPending(ch.id)}, executes: ch.approved,
		}}
	case standardSet, standardCleared:
		if standards[ch.namespace] != i {
			return nil
		}
		touches := []string{touchNamespace(ch.namespace), touchID(ch.id)}
		if ch.what == standardSet && c.nextEnd(ch.id, i) < 0 {
			return []item{{list: namespaceMeta, key: ch.namespace, body: ch.body, entry: ch.entry, touches: touches}}
		}
		return []item{{list: namespaceClears, key: ch.namespace, entry: ch.entry, touches: touches}}
	}
	return nil
}
