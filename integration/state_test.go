package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// state is what a fleet member holds, as rows by list and key: "memories" by id, "archived" by id, "links" by ends and relation,
// "pendings" by id, "namespace_meta" by namespace.
type state map[string]map[string]row

// stateLists are the lists of a state with the fields that are compared; nil: all. What else a list has is the member's own: when it archived
// a memory and why, when it decided, what it thinks of a signature, and which parent it guesses for a namespace that was set without one.
func stateLists(h history) map[string][]string {
	return map[string][]string{
		"memories": h.fields(),
		"archived": changes.fields(), // what the peer had, which it had merged from several
		"links":    {"source_id", "target_id", "relation", "created_at", "observed_by", "valid_from", "valid_until", "signature"},
		"pendings": {
			"id", "action_type", "memory_id", "namespace", "payload", "requested_by", "requested_at", "approvals", "status", "decided_by",
		},
		"namespace_meta": {"namespace", "standard_id", "parent_namespace", "updated_at"},
	}
}

// key is what names the row in its list.
func (r row) key(list string) string {
	fields := map[string][]string{"links": {"source_id", "target_id", "relation"}, "namespace_meta": {"namespace"}}[list]
	if fields == nil {
		fields = []string{"id"}
	}
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i], _ = r[f].(string)
	}
	return strings.Join(parts, " ")
}

// add puts rows, as JSON, into a list.
func (s state) add(list string, texts ...[]byte) error {
	if s[list] == nil {
		s[list] = map[string]row{}
	}
	for _, text := range texts {
		r, err := parseRow(text)
		if err != nil {
			return fmt.Errorf("%s: %w", list, err)
		}
		key := r.key(list)
		if _, twice := s[list][key]; twice {
			return fmt.Errorf("%s: %s is there twice", list, key)
		}
		s[list][key] = r
	}
	return nil
}

// writerLists read the writer's tables as JSON. Times that peers keep as text are written as on the wire.
func writerLists() map[string]string {
	const updatedAt = ` || jsonb_build_object('updated_at', to_char(x.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00')`
	return map[string]string{
		"memories": `select (to_jsonb(x)` + updatedAt + `)::text from memories x`,
		"archived": `select (to_jsonb(x)` + updatedAt + `)::text from archived_memories x`,
		"links": `select (to_jsonb(x) || case when x.signature is not null then jsonb_build_object('signature',
			(select jsonb_agg(get_byte(x.signature, i) order by i) from generate_series(0, 63) i)) else '{}' end)::text from memory_links x`,
		"pendings":       `select to_jsonb(x)::text from pending_actions x`,
		"namespace_meta": `select (to_jsonb(x)` + updatedAt + `)::text from namespace_meta x`,
	}
}

// writerState is the writer's state.
func (f *fleet) writerState(ctx context.Context) (state, error) {
	s := state{}
	for list, sql := range writerLists() {
		rows, err := f.strings(ctx, sql)
		if err != nil {
			return nil, err
		}
		if err := s.add(list); err != nil {
			return nil, err
		}
		for _, text := range rows {
			if err := s.add(list, []byte(text)); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// state is the peer's, of which it gives two parts one after the other.
func (p *member) state(ctx context.Context) (state, error) {
	s := state{}
	err := p.lines(ctx, "/_ref/memories", func(line []byte) error { return s.add("memories", line) })
	if err != nil {
		return nil, err
	}
	var rest map[string][]json.RawMessage
	if err := p.lines(ctx, "/_ref/state", func(line []byte) error { return json.Unmarshal(line, &rest) }); err != nil {
		return nil, err
	}
	for list := range writerLists() {
		if err := s.add(list); err != nil {
			return nil, err
		}
		for _, r := range rest[list] {
			if err := s.add(list, r); err != nil {
				return nil, fmt.Errorf("%s: %w", p.id, err)
			}
		}
	}
	return s, nil
}

// difference is one row of one peer's list. Without a peer it is an error.
type difference struct {
	peer            *member
	list, key, text string
}

// stateDifferences is where peers do not equal the writer in any list (C1).
func (f *fleet) stateDifferences(ctx context.Context, h history) []string {
	return texts(f.rowDifferences(ctx, h))
}

func texts(differences []difference) []string {
	var all []string
	for _, d := range differences {
		if d.peer == nil {
			all = append(all, d.text)
		} else {
			all = append(all, fmt.Sprintf("C1: %s, %s: %s %s", d.peer.id, d.list, d.key, d.text))
		}
	}
	return all
}

func (f *fleet) rowDifferences(ctx context.Context, h history) []difference {
	want, err := f.writerState(ctx)
	if err != nil {
		return []difference{{text: err.Error()}}
	}
	var found []difference
	for _, p := range f.peers {
		got, err := p.state(ctx)
		if err != nil {
			found = append(found, difference{text: err.Error()})
			continue
		}
		for list, fields := range stateLists(h) {
			for _, d := range differ(got[list], want[list], fields) {
				d.peer, d.list = p, list
				found = append(found, d)
			}
		}
	}
	return found
}

// differ compares the rows of one list.
func differ(got, want map[string]row, fields []string) []difference {
	var found []difference
	for _, key := range slices.Sorted(maps.Keys(want)) {
		r, ok := got[key]
		if !ok {
			found = append(found, difference{key: key, text: "is missing"})
			continue
		}
		compared := fields
		if want[key]["parent_namespace"] == nil {
			compared = slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return f == "parent_namespace" })
		}
		if diff := cmp.Diff(r.only(compared), want[key].only(compared)); diff != "" {
			found = append(found, difference{key: key, text: "(-peer +writer):\n" + diff})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			found = append(found, difference{key: key, text: "should not be there"})
		}
	}
	return found
}

// convergeAll waits until nothing is left to do, refusals included, and every list of every peer equals the writer's; then it checks the rest.
func (f *fleet) convergeAll(t *testing.T, h history) {
	t.Helper()
	until(t, "the fleet has settled", func() []string { return f.unsettledOrRefused(t.Context()) })
	if left := f.rowDifferences(t.Context(), h); len(left) > 0 {
		t.Errorf("peers differ from the writer although nothing is left to do:\n%s", list(texts(left)))
		for _, d := range left[:min(3, len(left))] {
			if d.peer != nil {
				t.Log(f.story(t.Context(), d.peer, d.key))
			}
		}
	}
	f.check(t)
	atFirst, forGood := f.skipped(t.Context())
	if len(atFirst) > 0 {
		t.Logf("peers skipped at first:\n%s", list(atFirst))
	}
	if len(forGood) > 0 {
		t.Errorf("peers skipped what they never got again:\n%s", list(forGood))
	}
}

// unsettledOrRefused is what is left to do, refusals included. Those are tried again after a minute or more, which is not waited for.
func (f *fleet) unsettledOrRefused(ctx context.Context) []string {
	_, err := f.pool.Exec(ctx, `
		with refused as (update refusals set next_at = clock_timestamp() where next_at > clock_timestamp() + interval '1 second')
		update repairs set due_at = clock_timestamp() where class <> '' and due_at > clock_timestamp() + interval '1 second'`)
	return slices.Concat(problem(err), f.unsettled(ctx), f.refused(ctx))
}

// refused is the refusals that stand.
func (f *fleet) refused(ctx context.Context) []string {
	standing, err := f.strings(ctx, `
		select r.peer || ' refuses entry ' || r.entry || ' (' || o.kind || ' ' || o.key || '): ' || r.class
		from refusals r join outbox o on o.id = r.entry
		order by r.peer, r.entry`)
	return append(standing, problem(err)...)
}

// skipped is what peers skipped and got later, and what they did not get, although nothing that came later made it void.
func (f *fleet) skipped(ctx context.Context) (atFirst, forGood []string) {
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			forGood = append(forGood, err.Error())
		}
		for i, a := range log {
			if a.Result != "skipped" {
				continue
			}
			text := fmt.Sprintf("%s, push %d: %s of %q (to %q, namespace %q): %s", p.id, a.Push, a.Op, a.ID, a.Target, a.Namespace, a.Reason)
			if slices.ContainsFunc(log[i+1:], func(later applied) bool { return later.settles(a) }) {
				atFirst = append(atFirst, text)
			} else {
				forGood = append(forGood, text)
			}
		}
	}
	return atFirst, forGood
}

// settles reports whether a later item does what an item that was skipped should have done, or ends what that was about.
func (a applied) settles(skipped applied) bool {
	ends := (a.Op == "delete" || a.Op == "archive") && (a.ID == skipped.ID || a.ID == skipped.Target)
	if a.Result == "skipped" || a.Push == skipped.Push && !ends {
		return false
	}
	switch skipped.Op {
	case "link":
		return ends || a.Op == "link" && a.ID == skipped.ID && a.Target == skipped.Target && a.Relation == skipped.Relation
	case "namespace_set", "namespace_clear":
		return ends || (a.Op == "namespace_set" || a.Op == "namespace_clear") && a.Namespace == skipped.Namespace
	case "store", "restore":
		return ends || a.Op == "store" && a.ID == skipped.ID && a.UpdatedAt >= skipped.UpdatedAt
	}
	return a.Op == skipped.Op && a.ID == skipped.ID
}
