package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"quorumbox/internal/refpeer"
)

// target is what the laws of plan are checked against.
type target interface {
	// apply applies the items of one push and adds what was skipped, or merged into another row, to its faults.
	apply(push []item)
	// state is what it holds by now.
	state(t *rapid.T) tables
	faults() []string
}

func (r *receiver) state(*rapid.T) tables { return r.tables }
func (r *receiver) faults() []string      { return r.bad }

// reference is a reference peer, of which one history uses the ids that begin with prefix.
type reference struct {
	peer   *refpeer.Peer
	prefix string
	bad    []string
}

func (r *reference) apply(push []item) {
	if len(push) == 0 {
		return
	}
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/v1/sync/push", bytes.NewReader(message(push).Encode("ai:leader")))
	req.Header.Set("X-Peer-Id", "ai:leader")
	rec := httptest.NewRecorder()
	r.peer.Handler().ServeHTTP(rec, req)
	var answer struct{ Skipped int }
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK || answer.Skipped > 0 {
		r.bad = append(r.bad, fmt.Sprintf("%d %s", rec.Code, rec.Body))
	}
}

func (r *reference) faults() []string { return r.bad }

func (r *reference) state(t *rapid.T) tables {
	s := newTables()
	add := func(into map[string]row, raw []byte) {
		var m struct {
			ID string
			row
			UpdatedAt string `json:"updated_at"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		m.row.UpdatedAt = m.UpdatedAt
		if strings.HasPrefix(m.ID, r.prefix) {
			into[m.ID] = m.row
		}
	}
	var live bytes.Buffer
	if err := r.peer.Memories(t.Context(), &live); err != nil {
		t.Fatal(err)
	}
	for raw := range bytes.Lines(live.Bytes()) {
		add(s.Rows, raw)
	}
	rest, err := r.peer.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range rest.Archived {
		add(s.Archive, raw)
	}
	for _, l := range rest.Links {
		if strings.HasPrefix(l.SourceID, r.prefix) {
			s.Links[link{l.SourceID, l.TargetID, l.Relation}] = true
		}
	}
	for _, p := range rest.Pendings {
		if strings.HasPrefix(p.ID, r.prefix) {
			s.Pendings[p.ID] = p.Status
		}
	}
	for _, m := range rest.NamespaceMeta {
		if strings.HasPrefix(m.Namespace, r.prefix) {
			s.Meta[m.Namespace] = m.StandardID
		}
	}
	return s
}

// checkLaws draws a history and checks the laws of plan: applying the pushes of a range equals applying its entries one by one, and still does when
// the range, shorter ranges from the same cursor, or the first items of their pushes were applied before, or a push is applied twice. Nothing is
// skipped or merged into another row, which a peer would not let us see.
func checkLaws(t *rapid.T, prefix string, one, many target) {
	log, state := history(t, prefix)
	most := limits{items: rapid.IntRange(1, 10).Draw(t, "items"), bytes: rapid.IntRange(400, 4000).Draw(t, "bytes")}
	cursor := rapid.IntRange(0, len(log)).Draw(t, "cursor")

	for _, e := range log {
		for _, push := range plan([]entry{e}, most) {
			one.apply(push)
		}
	}
	if diff := cmp.Diff(state, one.state(t), cmp.AllowUnexported(link{})); diff != "" || len(one.faults()) > 0 {
		t.Fatalf("one by one: %v, (-writer +receiver):\n%s%s", one.faults(), diff, describe(log))
	}
	for _, e := range log[:cursor] { // acknowledged long ago
		for _, push := range plan([]entry{e}, most) {
			many.apply(push)
		}
	}
	var tried strings.Builder
	for cursor < len(log) { // range by range
		end := rapid.IntRange(cursor+1, len(log)).Draw(t, "range")
		tried.WriteString(pushRange(t, log, cursor, end, most, many))
		cursor = end
	}
	if diff := cmp.Diff(state, many.state(t), cmp.AllowUnexported(link{})); diff != "" || len(many.faults()) > 0 {
		t.Fatalf("after the pushes: %v, (-writer +receiver):\n%s%s%s", many.faults(), diff, describe(log), tried.String())
	}
}

// pushRange pushes a range until it is acknowledged, and says how.
func pushRange(t *rapid.T, log []entry, cursor, end int, most limits, to target) (tried string) {
	ends := rapid.SliceOfN(rapid.IntRange(cursor, end), 0, 3).Draw(t, "lost answers")
	slices.Sort(ends)
	for _, end := range ends {
		pushes := plan(log[cursor:end], most)
		applied := rapid.IntRange(0, len(pushes)).Draw(t, "applied")
		for _, push := range pushes[:applied] {
			to.apply(push)
		}
		tried += fmt.Sprintf("\nentries %d to %d were tried, %d of%s", cursor+1, end, applied, describePushes(pushes))
		if applied < len(pushes) {
			half := rapid.IntRange(0, len(pushes[applied])).Draw(t, "items of the next")
			to.apply(pushes[applied][:half])
			tried += fmt.Sprintf("\n  and %d items", half)
		}
	}
	pushes := plan(log[cursor:end], most)
	for _, push := range pushes {
		if len(push) == 0 {
			t.Fatal("an empty push")
		}
		to.apply(push)
		if rapid.Bool().Draw(t, "again") {
			to.apply(push) // its answer was lost, and the retry came at once
		}
	}
	return tried + fmt.Sprintf("\nentries %d to %d were pushed:%s", cursor+1, end, describePushes(pushes))
}

// The laws of plan, for a receiver written the dumb way. Thousands of histories a second: `-rapid.checks=100000` is a matter of seconds.
func TestPlanLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) { checkLaws(t, "", newReceiver(), newReceiver()) })
}

// The laws of plan, for the reference peer itself.
func TestPlanLawsAtTheReferencePeer(t *testing.T) {
	t.Parallel()
	const histories = 50 // in one peer, before the state that is read gets too long
	n := 0
	var one, many *refpeer.Peer
	fresh := func() *refpeer.Peer {
		p, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: t.TempDir(), Sync: refpeer.Off})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	closeBoth := func() {
		for _, p := range []*refpeer.Peer{one, many} {
			if p != nil {
				_ = p.Close()
			}
		}
	}
	t.Cleanup(func() { closeBoth() })
	rapid.Check(t, func(rt *rapid.T) {
		if n%histories == 0 {
			closeBoth()
			one, many = fresh(), fresh()
		}
		n++
		prefix := fmt.Sprintf("h%d-", n)
		checkLaws(rt, prefix, &reference{peer: one, prefix: prefix}, &reference{peer: many, prefix: prefix})
	})
}
