package jobs

import (
	"encoding/json"
	"maps"
)

// row is a memory as the laws compare it.
type row struct{ Namespace, Title, Content, UpdatedAt string }

func (r row) place() place { return place{r.Namespace, r.Title} }

type place struct{ namespace, title string }

type link struct{ source, target, relation string }

// tables is the state of a writer or a receiver.
type tables struct {
	Rows     map[string]row
	Archive  map[string]row
	Links    map[link]bool
	Meta     map[string]string // namespace → standard
	Pendings map[string]string // id → status
}

func newTables() tables {
	return tables{map[string]row{}, map[string]row{}, map[link]bool{}, map[string]string{}, map[string]string{}}
}

// holder is the id of the live memory at a place.
func (s tables) holder(at place) (id string, ok bool) {
	for id, r := range s.Rows {
		if r.place() == at {
			return id, true
		}
	}
	return "", false
}

// end removes a live memory and what hangs on it.
func (s tables) end(id string) {
	delete(s.Rows, id)
	maps.DeleteFunc(s.Links, func(l link, _ bool) bool { return l.source == id || l.target == id })
	maps.DeleteFunc(s.Meta, func(_, standard string) bool { return standard == id })
}

// receiver is a peer written the dumb way, by wire.md 6: conflict key (title, namespace), no tombstones, a clock far ahead.
type receiver struct {
	tables
	actions map[string]action // parked, by pending id
	bad     []string          // items that were skipped, or merged into another row
}

type action struct {
	Type     string          `json:"action_type"`
	MemoryID string          `json:"memory_id"`
	Payload  json.RawMessage `json:"payload"`
}

func newReceiver() *receiver { return &receiver{tables: newTables(), actions: map[string]action{}} }

const receiverNow = "2040-01-01T00:00:00.000000+00:00"

// apply applies the items of a push, in their order.
func (r *receiver) apply(push []item) {
	for _, it := range push {
		if problem := r.item(it); problem != "" {
			r.bad = append(r.bad, problem+" "+it.key)
		}
	}
}

func (r *receiver) item(it item) (problem string) {
	switch it.list {
	case memories:
		return r.store(it.key, it.body)
	case deletions:
		r.end(it.key)
	case archives:
		if live, ok := r.Rows[it.key]; ok {
			r.end(it.key)
			r.Archive[it.key] = live
		}
	case restores:
		return r.restore(it.key)
	case links:
		return r.link(it.body)
	case pendings:
		var a action
		_ = json.Unmarshal(it.body, &a)
		r.actions[it.key], r.Pendings[it.key] = a, "pending"
	case decisions:
		r.decide(it)
	case namespaceMeta:
		var p struct {
			Standard string `json:"standard_id"`
		}
		_ = json.Unmarshal(it.body, &p)
		if _, ok := r.Rows[p.Standard]; !ok {
			return "standard is not there:"
		}
		r.Meta[it.key] = p.Standard
	case namespaceClears:
		delete(r.Meta, it.key)
	}
	return ""
}

func (r *receiver) store(id string, body []byte) (problem string) {
	var m struct {
		row
		UpdatedAt string `json:"updated_at"`
	}
	_ = json.Unmarshal(body, &m)
	m.row.UpdatedAt = m.UpdatedAt
	other, taken := r.holder(m.place())
	old, exists := r.Rows[id]
	switch {
	case taken && other != id:
		return "merged into " + other + ":"
	case exists && old.place() != m.place():
		return "skipped a rename of"
	case !exists || m.UpdatedAt > old.UpdatedAt:
		r.Rows[id] = m.row
	}
	return ""
}

func (r *receiver) restore(id string) (problem string) {
	away, ok := r.Archive[id]
	if !ok {
		return ""
	}
	if _, taken := r.holder(away.place()); taken {
		return "title is taken: restore of"
	}
	if _, live := r.Rows[id]; live {
		return "live: restore of"
	}
	delete(r.Archive, id)
	away.UpdatedAt = receiverNow
	r.Rows[id] = away
	return ""
}

func (r *receiver) link(body []byte) (problem string) {
	var l struct {
		Source   string `json:"source_id"`
		Target   string `json:"target_id"`
		Relation string
	}
	_ = json.Unmarshal(body, &l)
	_, source := r.Rows[l.Source]
	_, target := r.Rows[l.Target]
	if !source || !target {
		return "an end is not there: link"
	}
	r.Links[link{l.Source, l.Target, l.Relation}] = true
	return ""
}

func (r *receiver) decide(it item) {
	if r.Pendings[it.key] != "pending" {
		return
	}
	var d struct{ Approved bool }
	_ = json.Unmarshal(it.body, &d)
	if !d.Approved {
		r.Pendings[it.key] = "rejected"
		return
	}
	r.Pendings[it.key] = "approved"
	switch a := r.actions[it.key]; a.Type {
	case "store":
		var m struct{ ID string }
		_ = json.Unmarshal(a.Payload, &m)
		r.store(m.ID, a.Payload) // a parked action that fails is nothing that the push reports
	case "delete":
		r.end(a.MemoryID)
	}
}
