package jobs

import (
	"encoding/json"
	"slices"

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

// plan turns a range of the log, in log order within each lane, into pushes. Two laws hold, for a receiver that keys memories by id and by (title,
// namespace), skips a store whose id it has under another title, keeps no tombstones, and applies the memories of a push before its
// deletions (wire.md 6):
//
//   - Applying the pushes equals applying the entries one by one.
//   - It still does if entries or pushes of the range have been applied before: the range can be pushed again after a lost answer.
//
// So each id that is deleted in the range is deleted once, and of its stores only those after its last delete are sent. Where such a store, or
// one that takes a title that was freed, could collide with the row that has to go, the deletions are pushes of their own and come first.
func plan(entries []entry, most limits) [][]entry {
	last := map[string]int{} // id → its last delete
	for i, e := range entries {
		if e.Kind == outbox.KindDelete {
			last[e.Key] = i
		}
	}
	if len(last) == 0 {
		return cut(entries, most)
	}
	var stores, deletes []entry
	for i, e := range entries {
		gone, deleted := last[e.Key]
		switch {
		case e.Kind == outbox.KindDelete && i == gone:
			deletes = append(deletes, e)
		case e.Kind == outbox.KindStore && (!deleted || i > gone):
			stores = append(stores, e)
		}
	}
	if collide(entries, stores, last) {
		return append(cut(deletes, most), cut(stores, most)...)
	}
	return cut(append(stores, deletes...), most)
}

// collide reports whether a store that is sent needs an id or a title of a memory that was deleted in the range.
func collide(entries, stores []entry, deleted map[string]int) bool {
	type titleKey struct{ namespace, title string }
	freed := map[titleKey]bool{}
	for _, e := range entries {
		if e.Kind == outbox.KindDelete {
			title, ok := e.title()
			if !ok && len(stores) > 0 {
				return true // whichever title it was
			}
			freed[titleKey{e.Namespace, title}] = true
		}
	}
	return slices.ContainsFunc(stores, func(e entry) bool {
		if _, ok := deleted[e.Key]; ok {
			return true
		}
		title, ok := e.title()
		return !ok || freed[titleKey{e.Namespace, title}]
	})
}

// cut splits entries into runs that fit into one push each. An entry that is larger than a push may be goes alone.
func cut(entries []entry, most limits) [][]entry {
	var pushes [][]entry
	start, stores, deletes, bytes := 0, 0, 0, 0
	for i, e := range entries {
		list := &stores
		if e.Kind == outbox.KindDelete {
			list = &deletes
		}
		if i > start && (*list >= most.items || bytes+e.size() > most.bytes) {
			pushes = append(pushes, entries[start:i])
			start, stores, deletes, bytes = i, 0, 0, 0
		}
		*list++
		bytes += e.size()
	}
	if start < len(entries) {
		pushes = append(pushes, entries[start:])
	}
	return pushes
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
