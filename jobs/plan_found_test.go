package jobs

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/outbox"
)

// logOf writes a log for a test: each line is one entry.
type logOf struct {
	entries []entry
	clock   *author
	rows    map[string]row
}

func newLog() *logOf { return &logOf{clock: &author{}, rows: map[string]row{}} }

func (l *logOf) add(kind outbox.Kind, namespace, key string, payload []byte) *logOf {
	l.entries = append(l.entries, entry{ID: int64(len(l.entries) + 1), Namespace: namespace, Kind: kind, Key: key, Payload: payload})
	return l
}

func (l *logOf) store(id, namespace, title string) *logOf {
	at := l.clock.now()
	l.rows[id] = row{namespace, title, id + " at " + at, at}
	return l.add(outbox.KindStore, namespace, id, wire(id, l.rows[id]))
}

func (l *logOf) delete(id string) *logOf {
	r := l.rows[id]
	return l.add(outbox.KindDelete, r.Namespace, id, object(map[string]any{"title": r.Title}))
}

func (l *logOf) archive(id string) *logOf {
	return l.add(outbox.KindArchive, l.rows[id].Namespace, id, wire(id, l.rows[id]))
}

func (l *logOf) restore(id string, r row) *logOf {
	r.UpdatedAt = l.clock.now()
	l.rows[id] = r
	return l.add(outbox.KindRestore, r.Namespace, id, wire(id, r))
}

// park parks the store of a memory, and approve approves it; the writer stores it, too.
func (l *logOf) park(pending, id, namespace, title string) *logOf {
	at := l.clock.now()
	return l.add(outbox.KindPending, namespace, pending, object(map[string]any{
		"id": pending, "action_type": "store", "namespace": namespace, "status": "pending",
		"payload": json.RawMessage(wire(id, row{namespace, title, "parked at " + at, at})),
	}))
}

func (l *logOf) approve(pending, namespace string) *logOf {
	return l.add(outbox.KindDecision, namespace, pending, object(map[string]any{"id": pending, "approved": true, "decider": "x"}))
}

// attempt is a range that was pushed before: up to an entry, and so many pushes of it. If it was acknowledged, what follows begins after it.
type attempt struct {
	end, pushes int
	acked       bool
}

// Histories that the search of TestPlanLaws found, each of which an earlier plan got wrong.
func TestPlanOfFoundHistories(t *testing.T) {
	t.Parallel()
	archivedTwice := newLog().store("a", "n", "T1").archive("a").store("a", "m", "T1").store("b", "n", "T1")
	archivedTwice.archive("a").restore("a", archivedTwice.rows["a"])
	restored := newLog().store("b", "m", "T2").archive("b")
	restored.restore("b", restored.rows["b"]).archive("b")

	for name, c := range map[string]struct {
		log    []entry
		cursor int
		tried  []attempt
	}{
		"a rename that was applied": {
			newLog().store("a", "n", "T1").delete("a").store("a", "n", "T2").entries, 0, []attempt{{end: 3, pushes: 2}},
		},
		"a restore that was applied, archived since":             {restored.entries, 2, []attempt{{end: 3, pushes: 1}}},
		"a restore while an older archived row's title is taken": {archivedTwice.entries, 4, nil},
		"an action that ran after an archive": {
			newLog().store("a", "m", "T1").park("q", "a", "m", "T1").archive("a").approve("q", "m").store("a", "m", "T1").entries,
			2,
			[]attempt{{end: 4, pushes: 9}, {end: 4, pushes: 9, acked: true}},
		},
		"an id that took an archived one's title and is gone since": {
			newLog().store("b", "n", "T2").archive("b").park("p", "c", "m", "T1").approve("p", "m").store("c", "m", "T1").store("a", "n", "T2").delete("a").entries,
			0,
			[]attempt{{end: 6, pushes: 9}},
		},
		"a later life of an archived id that is gone since": {
			newLog().store("b", "m", "T1").park("p", "c", "m", "T3").approve("p", "m").store("c", "m", "T3").archive("b").store("b", "n", "T2").delete("b").entries,
			0,
			[]attempt{{end: 6, pushes: 9}},
		},
	} {
		one, many := newReceiver(), newReceiver()
		applyAll := func(r *receiver, entries []entry) {
			for _, e := range entries {
				for _, push := range plan([]entry{e}, wide) {
					r.apply(push)
				}
			}
		}
		applyAll(one, c.log)
		applyAll(many, c.log[:c.cursor])
		for _, a := range c.tried {
			pushes := plan(c.log[c.cursor:a.end], wide)
			for _, push := range pushes[:min(a.pushes, len(pushes))] {
				many.apply(push)
			}
			if a.acked {
				c.cursor = a.end
			}
		}
		pushes := plan(c.log[c.cursor:], wide)
		for _, push := range pushes {
			many.apply(push)
			many.apply(push) // once more, because its answer was lost
		}
		if diff := cmp.Diff(one.tables, many.tables, cmp.AllowUnexported(link{})); diff != "" || len(one.bad)+len(many.bad) > 0 {
			t.Errorf("%s: %v %v, (-one by one +pushes):\n%s%s%s", name, one.bad, many.bad, diff, describe(c.log), describePushes(pushes))
		}
	}
}
