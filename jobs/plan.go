package jobs

import (
	"encoding/json"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

// entry is one change as it is pushed.
type entry struct {
	ID        int64
	Lane      int16
	Namespace string
	Kind      outbox.Kind
	Key       string
	Payload   []byte
}

// size is about what the entry takes in a push.
func (e entry) size() int { return len(e.Payload) + len(e.Key) + 4 }

// title is the memory's title, or ok = false if the entry does not say it.
func (e entry) title() (title string, ok bool) {
	var p struct{ Title *string }
	if len(e.Payload) == 0 || json.Unmarshal(e.Payload, &p) != nil || p.Title == nil {
		return "", false
	}
	return *p.Title, true
}

// limits bounds one push.
type limits struct {
	items int // per list
	bytes int
}

// plan cuts entries, which are in log order within each lane, into pushes, each a run of them. Applying the pushes one after the other
// equals applying the entries one by one, although a receiver applies all memories of a push before its deletions.
func plan(entries []entry, most limits) [][]entry {
	var pushes [][]entry
	start := 0
	g := newGroup()
	for i, e := range entries {
		if i > start && !g.takes(e, most) {
			pushes = append(pushes, entries[start:i])
			start, g = i, newGroup()
		}
		g.add(e)
	}
	if start < len(entries) {
		pushes = append(pushes, entries[start:])
	}
	return pushes
}

// group is what a push holds so far.
type group struct {
	stores, deletes, bytes int
	deleted                map[string]bool   // ids
	freed                  map[titleKey]bool // (title, namespace) of deleted memories
	freedUnknown           map[string]bool   // namespaces in which a memory of unknown title was deleted
}

type titleKey struct{ namespace, title string }

func newGroup() *group {
	return &group{deleted: map[string]bool{}, freed: map[titleKey]bool{}, freedUnknown: map[string]bool{}}
}

// takes reports whether e may join. A store may not follow the delete of its own id, nor of the memory that had its title:
// within one push it would be applied first, be skipped or merged, and then be deleted (wire.md 6.3 rules 3 and 4).
func (g *group) takes(e entry, most limits) bool {
	if g.bytes+e.size() > most.bytes {
		return false
	}
	if e.Kind == outbox.KindDelete {
		return g.deletes < most.items
	}
	if g.stores >= most.items || g.deleted[e.Key] || g.freedUnknown[e.Namespace] {
		return false
	}
	if len(g.freed) == 0 {
		return true
	}
	title, ok := e.title()
	return ok && !g.freed[titleKey{e.Namespace, title}]
}

func (g *group) add(e entry) {
	g.bytes += e.size()
	if e.Kind != outbox.KindDelete {
		g.stores++
		return
	}
	g.deletes++
	g.deleted[e.Key] = true
	if title, ok := e.title(); ok {
		g.freed[titleKey{e.Namespace, title}] = true
	} else {
		g.freedUnknown[e.Namespace] = true
	}
}

// message is the body of a push that carries the entries.
func message(entries []entry) peer.Message {
	var m peer.Message
	for _, e := range entries {
		if e.Kind == outbox.KindDelete {
			m.Deletions = append(m.Deletions, e.Key)
		} else {
			m.Memories = append(m.Memories, e.Payload)
		}
	}
	return m
}
