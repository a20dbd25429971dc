package jobs

import (
	"slices"
	"time"

	"quorumbox/outbox"
)

// entry is one change as it is pushed. Its payload has the form that the writer's functions give it, by kind.
type entry struct {
	ID        int64
	Lane      int16
	Namespace string
	Kind      outbox.Kind
	Key       string
	Payload   []byte
	Embedding []byte        // of a store or consolidate, or nil
	Waited    time.Duration // from the writer's insert to the dispatch; known to a fan-out only

	Traceparent string // the writer's trace context as it is in the row, empty if there is none or nobody wants to know
}

// list is one list of a push. The constants are in the order in which receivers apply the lists (wire.md 6).
type list uint8

const (
	memories list = iota
	deletions
	archives
	restores
	links
	pendings
	decisions
	namespaceMeta
	namespaceClears
	lists int = iota // how many there are
)

// item is one element of a push: what an entry does at a peer, or a part of it.
type item struct {
	list      list
	key       string // the element of a list of texts; otherwise the id or namespace that body is about
	body      []byte // the element of a list of objects
	embedding []byte // travels with a memory, or nil
	entry     entry  // the one whose doing it is

	touches  []string // what must keep its order
	apart    []string // what no other item of its push may touch
	executes bool     // an approved decision: the receiver runs an action that may touch anything
}

// size is about what the item takes in a push.
func (i item) size() int { return len(i.key) + len(i.body) + len(i.embedding) + 4 }

// limits bounds one push.
type limits struct {
	items int // per list
	bytes int
}

// plan turns a range of the log, in log order within each lane, into pushes: the items of each in the order in which a receiver applies them.
// Two laws hold for a receiver by wire.md 6 (it keys memories by id and by (title, namespace), skips a store whose id it has under another
// title, keeps no tombstones, cascades, and applies a push list by list):
//
//   - Applying the pushes equals applying the entries one by one.
//   - It still does if entries or pushes of the range have been applied before: the range can be pushed again after a lost answer, and as
//     a part of a longer one, and a push can be applied twice. Nothing in it is skipped then, either.
//
// compact leaves out what the range itself supersedes and puts deletions first. cut joins neighbours as long as the order of the lists keeps theirs.
func plan(entries []entry, most limits) [][]item {
	if !slices.ContainsFunc(entries, func(e entry) bool { return e.Kind != outbox.KindStore }) {
		items := make([]item, len(entries))
		for i, e := range entries {
			items[i] = item{list: memories, key: e.Key, body: e.Payload, embedding: e.Embedding, entry: e}
		}
		return cut(items, most)
	}
	return cut(compact(entries), most)
}

// cut splits items into pushes. An item joins the push before it unless that is full, or holds an item of a list that is applied later and touches
// the same thing. An item that is larger than a push may be goes alone.
func cut(items []item, most limits) [][]item {
	var pushes [][]item
	p := newPacker(most)
	for i, it := range items {
		if !p.takes(it) {
			pushes = append(pushes, inOrder(items[i-p.count:i]))
			p = newPacker(most)
		}
		p.add(it)
	}
	if p.count > 0 {
		pushes = append(pushes, inOrder(items[len(items)-p.count:]))
	}
	return pushes
}

// inOrder sorts the items of a push by list, as it is applied.
func inOrder(items []item) []item {
	byList := func(a, b item) int { return int(a.list) - int(b.list) }
	if slices.IsSortedFunc(items, byList) {
		return items
	}
	items = slices.Clone(items)
	slices.SortStableFunc(items, byList)
	return items
}

// packer is the push that is being filled.
type packer struct {
	most     limits
	count    int
	bytes    int
	perList  [lists]int
	latest   map[string]list // by what is touched: the last list that does
	executes bool            // it holds approved decisions, and nothing else
}

func newPacker(most limits) *packer { return &packer{most: most} }

func (p *packer) takes(it item) bool {
	switch {
	case p.count == 0:
		return true
	case p.perList[it.list] >= p.most.items || p.bytes+it.size() > p.most.bytes:
		return false
	case p.executes != it.executes:
		return false // what the receiver executes must not be undone by another item when the push is sent again
	}
	touched := func(what string) bool {
		_, ok := p.latest[what]
		return ok
	}
	return !slices.ContainsFunc(it.apart, touched) && !slices.ContainsFunc(it.touches, func(touched string) bool {
		later, ok := p.latest[touched]
		return ok && later > it.list
	})
}

func (p *packer) add(it item) {
	p.count++
	p.bytes += it.size()
	p.perList[it.list]++
	p.executes = p.executes || it.executes
	if len(it.touches) > 0 && p.latest == nil {
		p.latest = map[string]list{}
	}
	for _, touched := range it.touches {
		p.latest[touched] = max(p.latest[touched], it.list)
	}
}

// The things that items touch, as keys of packer.latest.
func touchID(id string) string                  { return "i" + id }
func touchTitle(namespace, title string) string { return "t" + namespace + "\x00" + title }
func touchTitles(namespace string) string       { return "u" + namespace } // some title of the namespace, it is not known which
func touchPending(id string) string             { return "p" + id }
func touchNamespace(namespace string) string    { return "n" + namespace }
