package model

// items are what a push does at a peer, in order, four bits each from the lowest: the number of an entry that is a store, or deletion + the
// bit of an id.
type items uint16

const deletion items = 8

func (l items) first() items { return l & 0xf }
func (l items) rest() items  { return l >> 4 }

func (l items) with(item items) items {
	shift := 0
	for l>>shift != 0 {
		shift += 4
	}
	return l | item<<shift
}

// apply does what one item does, by the rules of wire.md 6: a store goes to the row that has its title, whatever the id of that, and the
// newer content wins; a delete goes by id and leaves no tombstone.
func (m *model) apply(at memory, item items) memory {
	switch {
	case item >= deletion:
		if idBit(at.id) == 1<<(item-deletion) {
			return memory{}
		}
	case at == memory{}:
		return memory{id: m.log[item-1].id, version: uint8(item)}
	default:
		at.version = max(at.version, uint8(item))
	}
	return at
}

// after is the writer's state after the first entries of its history.
func (m *model) after(entries uint8) (at memory) {
	for e := uint8(1); e <= entries; e++ {
		at = m.apply(at, m.log[e-1].item(e))
	}
	return at
}

// entry is one of the writer's history.
type entry struct {
	id      uint8 // 1 is a, 2 is b
	deletes bool
}

func (e entry) item(number uint8) items {
	if e.deletes {
		return deletion + items(e.id-1)
	}
	return items(number)
}

// plan is the shipment of the entries after from, up to to, as jobs/plan.go packs it: ids that are deleted in the range are deleted first,
// their stores before that are not sent, and a store goes in a push after that of the deletions.
func (m *model) plan(from, to uint8) (pushes [2]items) {
	var deleted [3]uint8 // by id: the last delete
	for e := from + 1; e <= to; e++ {
		if m.log[e-1].deletes {
			deleted[m.log[e-1].id] = e
		}
	}
	var deletions, stores items
	for id := uint8(1); id <= 2; id++ {
		if deleted[id] > 0 {
			deletions = deletions.with(deletion + items(id-1))
		}
	}
	for e := from + 1; e <= to; e++ {
		if x := m.log[e-1]; !x.deletes && e > deleted[x.id] {
			stores = stores.with(items(e))
		}
	}
	return inPushes(deletions, stores)
}

// planRepair is the shipment that makes a peer's copy of the subjects equal to the state after the first entries.
func (m *model) planRepair(subjects ids, entries uint8) [2]items {
	alive := m.after(entries)
	var deletions, stores items
	for id := uint8(1); id <= 2; id++ {
		if subjects&idBit(id) == 0 {
			continue
		}
		if id != alive.id || !m.Variant.StoreOnly {
			deletions = deletions.with(deletion + items(id-1))
		}
		if id == alive.id {
			stores = stores.with(items(alive.version))
		}
	}
	return inPushes(deletions, stores)
}

func inPushes(deletions, stores items) [2]items {
	if deletions == 0 {
		return [2]items{stores}
	}
	return [2]items{deletions, stores}
}

// superseded is the ids that entries after from, up to to, are about, and later ones, too: what arrives late of the others does what was
// done last anyway.
func (m *model) superseded(from, to, committed uint8) (set ids) {
	for e := from + 1; e <= to; e++ {
		for later := e + 1; later <= committed; later++ {
			if m.log[later-1].id == m.log[e-1].id {
				set |= idBit(m.log[e-1].id)
			}
		}
	}
	return set
}

// idBit is the set of one id; that of no id is empty.
func idBit(id uint8) ids { return 1 << id >> 1 }
