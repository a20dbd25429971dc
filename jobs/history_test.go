package jobs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"quorumbox/outbox"
)

// author plays the writer's functions (package migrations): it draws operations, keeps the state that the writer's tables would have, and logs the
// entries that the functions would append.
type author struct {
	tables
	t       *rapid.T
	prefix  string // of ids, namespaces and links
	log     []entry
	actions map[string]action
	clock   int
}

func newAuthor(t *rapid.T, prefix string) *author {
	return &author{tables: newTables(), t: t, prefix: prefix, actions: map[string]action{}}
}

// history draws a log that a writer could have written, and the state that the writer has in the end.
func history(t *rapid.T, prefix string) ([]entry, tables) {
	w := newAuthor(t, prefix)
	operations := []func(){
		w.put, w.put, w.put, w.remove, w.archive, w.archive, w.restore, w.restore, w.link, w.link, w.consolidate, w.pending, w.decide, w.setStandard, w.clearStandard,
	}
	for range rapid.IntRange(1, 40).Draw(t, "length") {
		rapid.SampledFrom(operations).Draw(t, "operation")()
	}
	return w.log, w.tables
}

func (w *author) id() string {
	return w.prefix + rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(w.t, "id")
}

func (w *author) namespace() string {
	return w.prefix + rapid.SampledFrom([]string{"m", "n"}).Draw(w.t, "namespace")
}

func (w *author) title() string {
	return rapid.SampledFrom([]string{"T1", "T2", "T3"}).Draw(w.t, "title")
}

// now is later than every time before.
func (w *author) now() string {
	w.clock++
	return fmt.Sprintf("2025-01-01T00:00:00.%06d+00:00", w.clock)
}

// wire is the memory as it is sent.
func wire(id string, r row) []byte {
	return fmt.Appendf(nil, `{"access_count":0,"citations":[],"confidence":1,"confidence_source":"caller_provided","content":%q,`+
		`"created_at":"2025-01-01T00:00:00.000000+00:00","id":%q,"memory_kind":"observation","metadata":{"scope":"collective"},`+
		`"namespace":%q,"priority":5,"reflection_depth":0,"source":"api","tags":[],"tier":"long","title":%q,"updated_at":%q,"version":1}`,
		r.Content, id, r.Namespace, r.Title, r.UpdatedAt)
}

func (w *author) append(kind outbox.Kind, namespace, key string, payload []byte) {
	w.log = append(w.log, entry{ID: int64(len(w.log) + 1), Namespace: namespace, Kind: kind, Key: key, Payload: payload})
}

func object(fields map[string]any) []byte {
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

func (w *author) put() {
	w.store(w.id(), row{Namespace: w.namespace(), Title: w.title()})
}

// store is memory_write: a rename or move is a delete and a store, and what hangs on the memory is appended again.
func (w *author) store(id string, r row) {
	if other, taken := w.holder(r.place()); taken && other != id {
		return // the writer's own database refuses it
	}
	old, exists := w.Rows[id]
	if r.UpdatedAt == "" || exists {
		r.UpdatedAt = w.now()
	}
	if r.Content == "" {
		r.Content = "content at " + r.UpdatedAt
	}
	moved := exists && old.place() != r.place()
	if moved {
		w.append(outbox.KindDelete, old.Namespace, id, w.titled(old))
	}
	w.Rows[id] = r
	w.append(outbox.KindStore, r.Namespace, id, wire(id, r))
	if !moved {
		return
	}
	for l := range w.Links {
		if l.source == id || l.target == id {
			w.appendLink(l)
		}
	}
	for namespace, standard := range w.Meta {
		if standard == id {
			w.appendStandard(namespace, standard)
		}
	}
}

// titled is the payload of a delete; an application that uses outbox_append may leave it out.
func (w *author) titled(r row) []byte {
	if rapid.Bool().Draw(w.t, "untitled") {
		return nil
	}
	return object(map[string]any{"title": r.Title})
}

func (w *author) remove() { w.delete(w.id()) }

func (w *author) delete(id string) {
	if old, ok := w.Rows[id]; ok {
		w.end(id)
		w.append(outbox.KindDelete, old.Namespace, id, w.titled(old))
	}
}

func (w *author) archive() {
	id := w.id()
	if old, ok := w.Rows[id]; ok {
		w.end(id)
		w.Archive[id] = old
		w.append(outbox.KindArchive, old.Namespace, id, wire(id, old))
	}
}

func (w *author) restore() {
	id := w.id()
	r, ok := w.Archive[id]
	_, live := w.Rows[id]
	_, taken := w.holder(r.place())
	if !ok || live || taken {
		return
	}
	delete(w.Archive, id)
	r.UpdatedAt = w.now()
	w.Rows[id] = r
	w.append(outbox.KindRestore, r.Namespace, id, wire(id, r))
}

func (w *author) link() {
	l := link{w.id(), w.id(), rapid.SampledFrom([]string{"related_to", "contradicts"}).Draw(w.t, "relation")}
	_, source := w.Rows[l.source]
	_, target := w.Rows[l.target]
	if l.source != l.target && source && target {
		w.Links[l] = true
		w.appendLink(l)
	}
}

func (w *author) appendLink(l link) {
	w.append(outbox.KindLink, w.Rows[l.source].Namespace, l.source+l.target, object(map[string]any{
		"source_id": l.source, "target_id": l.target, "relation": l.relation, "created_at": "2025-01-01T00:00:00.000000+00:00",
	}))
}

func (w *author) consolidate() {
	id, r := w.id(), row{Namespace: w.namespace(), Title: w.title()}
	var sources []map[string]any
	var ids []string
	for _, s := range []string{w.id(), w.id()} {
		old, live := w.Rows[s]
		if live && s != id && !slices.Contains(ids, s) {
			ids = append(ids, s)
			sources = append(sources, map[string]any{"id": s, "namespace": old.Namespace, "title": old.Title})
		}
	}
	_, live := w.Rows[id]
	holder, taken := w.holder(r.place())
	if live || len(ids) == 0 || taken && !slices.Contains(ids, holder) {
		return
	}
	for _, s := range ids {
		w.end(s)
	}
	r.UpdatedAt = w.now()
	r.Content = "consolidated at " + r.UpdatedAt
	w.Rows[id] = r
	w.append(outbox.KindConsolidate, r.Namespace, id, object(map[string]any{"memory": json.RawMessage(wire(id, r)), "sources": sources}))
}

func (w *author) pendingID() string {
	return w.prefix + rapid.SampledFrom([]string{"p", "q"}).Draw(w.t, "pending")
}

func (w *author) pending() {
	id := w.pendingID()
	if status, ok := w.Pendings[id]; ok && status != "pending" {
		return
	}
	a := action{Type: rapid.SampledFrom([]string{"store", "delete", "promote"}).Draw(w.t, "action"), Payload: json.RawMessage(`{}`)}
	if a.Type == "delete" {
		a.MemoryID = w.id()
	}
	if a.Type == "store" {
		now := w.now()
		a.Payload = wire(w.id(), row{w.namespace(), w.title(), "parked at " + now, now})
	}
	w.actions[id], w.Pendings[id] = a, "pending"
	fields := map[string]any{
		"id": id, "action_type": a.Type, "namespace": w.prefix + "n", "payload": a.Payload, "requested_by": "ai:x",
		"requested_at": "2025-01-01T00:00:00.000000+00:00", "status": "pending", "approvals": []any{},
	}
	if a.MemoryID != "" {
		fields["memory_id"] = a.MemoryID
	}
	w.append(outbox.KindPending, w.prefix+"n", id, object(fields))
}

// decide is pending_decide: an approved store or delete is executed here, too, unless it is refused.
func (w *author) decide() {
	id := w.pendingID()
	if w.Pendings[id] != "pending" {
		return
	}
	approved := rapid.Bool().Draw(w.t, "approved")
	a := w.actions[id]
	var m struct {
		ID string
		row
		UpdatedAt string `json:"updated_at"`
	}
	if a.Type == "store" {
		if err := json.Unmarshal(a.Payload, &m); err != nil {
			panic(err)
		}
		m.row.UpdatedAt = m.UpdatedAt
		if other, taken := w.holder(m.place()); approved && taken && other != m.ID {
			return
		}
	}
	w.Pendings[id] = "rejected"
	if approved {
		w.Pendings[id] = "approved"
	}
	decision := map[string]any{"id": id, "approved": approved, "decider": "ai:x"}
	if approved && a.Type == "delete" {
		decision["deletes"] = a.MemoryID
	}
	w.append(outbox.KindDecision, w.prefix+"n", id, object(decision))
	switch {
	case approved && a.Type == "store":
		w.store(m.ID, m.row)
	case approved && a.Type == "delete":
		w.delete(a.MemoryID)
	}
}

func (w *author) setStandard() {
	id := w.id()
	if _, live := w.Rows[id]; live {
		namespace := w.namespace()
		w.Meta[namespace] = id
		w.appendStandard(namespace, id)
	}
}

func (w *author) appendStandard(namespace, standard string) {
	w.append(outbox.KindNamespaceSet, namespace, namespace, object(map[string]any{
		"namespace": namespace, "standard_id": standard, "parent_namespace": w.prefix, "updated_at": "2025-01-01T00:00:00.000000+00:00",
	}))
}

func (w *author) clearStandard() {
	namespace := w.namespace()
	delete(w.Meta, namespace)
	w.append(outbox.KindNamespaceClear, namespace, namespace, nil)
}

// describe is a log or a push in short, for a failed test.
func describe(entries []entry) string {
	var b strings.Builder
	for _, e := range entries {
		var m struct {
			Title    string
			Approved bool
			Standard string `json:"standard_id"`
		}
		_ = json.Unmarshal(e.Payload, &m)
		fmt.Fprintf(&b, "\n%3d %s %s %s", e.ID, e.Kind, e.Namespace, e.Key)
		switch e.Kind {
		case outbox.KindConsolidate, outbox.KindPending:
			fmt.Fprintf(&b, " %s", e.Payload)
		case outbox.KindDecision:
			fmt.Fprintf(&b, " approved=%t", m.Approved)
		default:
			fmt.Fprintf(&b, " %s%s", m.Title, m.Standard)
		}
	}
	return b.String()
}

func describePushes(pushes [][]item) string {
	var b strings.Builder
	names := [lists]string{"+", "-", "archive ", "restore ", "link ", "pending ", "decide ", "set ", "clear "}
	for _, p := range pushes {
		b.WriteString("\n  {")
		for _, it := range p {
			fmt.Fprintf(&b, " %s%s(%d)", names[it.list], it.key, it.entry.ID)
		}
		b.WriteString(" }")
	}
	return b.String()
}

// size is what a store takes in a push.
func size(e entry) int { return item{key: e.Key, body: e.Payload}.size() }
