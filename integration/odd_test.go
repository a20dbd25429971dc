package integration

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

// One peer of three answers in each odd way in turn. Every verdict is met by the other two, the worker names the answer by its class, and refuses
// nothing but what that peer refuses for good; when the peer has come to its senses it gets in step, refusals included. In the end all peers
// equal the writer. The test prints a table of what happened.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{ackTimeout: time.Second, admin: freeAddr(t)})
	f.worker(t, "")
	f.await(t, f.store(t, memories("odd-first", 4)...)...)
	f.converge(t, insertsOnly)

	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "answer\tclass\tverdict\tpushes\twhile it lasts\tafterwards")
	for i, a := range oddAnswers() {
		f.oddAnswer(t, w, i, a)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("what the worker makes of odd answers:\n%s", table.String())
	f.convergeAll(t, insertsOnly)
}

// oddAnswer lets the last peer answer oddly, and looks at what comes of it.
func (f *fleet) oddAnswer(t *testing.T, table io.Writer, i int, a oddAnswer) {
	t.Helper()
	odd := f.peers[2]
	before, met := f.attempts(t, odd.id), int64(0)
	prefix := fmt.Sprintf("odd-%d", i)
	if a.faults == "" {
		odd.kill(t)
	} else {
		met = f.met(t, odd, a.mode)
		odd.setFaults(t, strings.ReplaceAll(a.faults, "%s", prefix+"-1"))
	}

	entries := f.oddWrite(t, prefix)
	v := f.await(t, entries...)
	wantMet(t, v, len(entries))
	until(t, a.name+": the worker has seen it", func() []string {
		seen := f.seen(t, before, odd.id)
		missing := slices.DeleteFunc(slices.Clone(a.classes), func(c peer.Class) bool { return seen[string(c)] > 0 })
		return slices.Concat(holds(len(missing) == 0, fmt.Sprintf("%v, want %v too", seen, missing)), f.unrecorded(t, odd.id, a))
	})
	if len(a.classes) == 0 || len(a.refused) > 0 {
		until(t, a.name+": the peer is in step", func() []string { return f.unsettled(t.Context()) })
	}
	standing := f.refusedEntries(t, odd.id)
	lagging := f.count(t, `select count(*) from lagging`)
	var want []outbox.EntryID
	for _, k := range a.refused {
		want = append(want, entries[k])
	}
	if diff := cmp.Diff(standing, want); diff != "" {
		t.Errorf("%s: entries that are refused for good (-got +want):\n%s", a.name, diff)
	}

	if a.faults == "" {
		odd.start(t)
	} else if !a.heals {
		odd.setFaults(t, "")
	}
	until(t, a.name+": the peer is in step again", func() []string { return f.unsettledOrRefused(t.Context()) })
	if a.faults != "" && f.met(t, odd, a.mode) == met {
		t.Errorf("C10: %s: the fault did not happen", a.name)
	}
	seen := f.seen(t, before, odd.id)
	for class := range seen {
		if class != string(peer.ClassOK) && !slices.Contains(a.classes, peer.Class(class)) {
			t.Errorf("%s: the worker names it %v, want %v and ok", a.name, seen, a.classes)
		}
	}
	if left := f.stateDifferences(t.Context(), insertsOnly); len(left) > 0 {
		t.Errorf("%s: peers differ from the writer:\n%s", a.name, list(left))
	}
	meanwhile := "in step"
	switch {
	case len(standing) > 0:
		meanwhile = fmt.Sprintf("%d of %d refused, the rest in step", len(standing), len(entries))
	case lagging > 0:
		meanwhile = "lags"
	}
	fmt.Fprintf(table, "%s\t%s\tmet\t%s\t%s\tin step\n", a.name, worst(a.classes), counts(seen), meanwhile)
}

// unrecorded is what is missing of the record of an answer that keeps the peer behind: the class, as the last one of a lagging lane and of the peer.
func (f *fleet) unrecorded(t *testing.T, id string, a oddAnswer) []string {
	t.Helper()
	if !a.lags() {
		return nil
	}
	var known bool
	err := f.pool.QueryRow(t.Context(), `
		select exists (select from lagging where peer = $1 and last_class = any ($2))
		   and exists (select from peers where id = $1 and last_error_class = any ($2))`, id, a.classes).Scan(&known)
	if err != nil {
		t.Fatal(err)
	}
	return holds(known, fmt.Sprintf("it is not written down as %v", a.classes))
}

// oddWrite commits three memories of one namespace, and the delete of one that is there, and returns the entries in this order.
func (f *fleet) oddWrite(t *testing.T, prefix string) []outbox.EntryID {
	t.Helper()
	list := make([]outbox.Memory, 3)
	for i := range list {
		list[i] = memory(fmt.Sprintf("%s-%d", prefix, i), "team/odd")
	}
	var gone string
	if err := f.pool.QueryRow(t.Context(), `select id from memories order by id limit 1`).Scan(&gone); err != nil {
		t.Fatal(err)
	}
	entries := f.store(t, list...)
	return append(entries, f.delete(t, gone))
}

// refusedEntries are the entries that the peer refuses for good.
func (f *fleet) refusedEntries(t *testing.T, id string) (entries []outbox.EntryID) {
	t.Helper()
	err := f.pool.QueryRow(t.Context(), `select array_agg(entry order by entry) from refusals where peer = $1`, id).Scan(&entries)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// met is how often a fault has met a push.
func (f *fleet) met(t *testing.T, p *member, mode string) int64 {
	t.Helper()
	c, err := p.counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Faults[mode]
}

func worst(classes []peer.Class) string {
	if len(classes) == 0 {
		return string(peer.ClassOK)
	}
	return string(classes[0])
}

// counts is "class n, class n".
func counts(seen map[string]int) string {
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(seen)) {
		parts = append(parts, fmt.Sprintf("%s %d", class, seen[class]))
	}
	return strings.Join(parts, ", ")
}

// The page about answers names every class, and says of each what the code does with it.
func TestAnswersAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/answers.md")
	if err != nil {
		t.Fatal(err)
	}
	type meaning struct{ Outcome, Sort string }
	got, want := map[string]meaning{}, map[string]meaning{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|[^|]*\\| ([a-z ]+) \\| ([a-z ]+) \\|").FindAllStringSubmatch(string(page), -1) {
		got[m[1]] = meaning{m[2], m[3]}
	}
	for _, c := range peer.Classes() {
		sort := "transient"
		switch {
		case c.Refusal():
			sort = "refusal"
		case c.Configuration():
			sort = "configuration"
		case c == peer.ClassOK:
			sort = "none"
		}
		want[string(c)] = meaning{strings.ReplaceAll(c.Outcome().String(), "_", " "), sort}
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("docs/answers.md (-page +code):\n%s", diff)
	}
}
