package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"quorumbox/internal/peer"
	"quorumbox/internal/refpeer"
)

// currentOf is what loadCurrent reads from a store with these tables, for everything that histories touch, all of it to be renewed.
func currentOf(want tables, prefix string) *current {
	c := &current{renewed: map[string]bool{}, subjectOf: map[string]subject{}}
	for _, name := range []string{"a", "b", "c", "d"} { // the ids of histories
		id := prefix + name
		c.renewed[id] = true
		c.subjectOf[subject{Kind: aMemory, Key: id}.name()] = subject{Kind: aMemory, Key: id, Method: renew}
		m := &memoryState{id: id, known: true}
		if live, ok := want.Rows[id]; ok {
			m.live, m.at = wire(id, live), slot{live.Namespace, live.Title}
		}
		if away, ok := want.Archive[id]; ok {
			m.archived, m.archiveAt = wire(id, away), slot{away.Namespace, away.Title}
		}
		c.memories = append(c.memories, m)
	}
	w := &author{tables: want, prefix: prefix}
	for l := range want.Links {
		w.appendLink(l)
		c.links = append(c.links, use{Key: l.source + l.target, Of: l.source, And: l.target, Body: w.log[len(w.log)-1].Payload})
	}
	for _, name := range []string{"m", "n"} {
		namespace := prefix + name
		if standard, ok := want.Meta[namespace]; ok {
			w.appendStandard(namespace, standard)
			c.standards = append(c.standards, use{Key: namespace, Of: standard, Body: w.log[len(w.log)-1].Payload})
			continue
		}
		c.cleared = append(c.cleared, namespace)
	}
	return c
}

// applying lets a target apply some pushes; the next one fails, and all after it.
type applying struct {
	to     target
	left   int
	pushes [][]item
}

func (p *applying) Push(_ context.Context, _ string, req peer.Request) (peer.Report, error) {
	if p.left--; p.left < 0 {
		return peer.Report{}, &peer.Error{Class: peer.ClassUnavailable}
	}
	items := itemsOf(req.Body)
	p.pushes = append(p.pushes, items)
	before := len(p.to.faults())
	p.to.apply(items)
	if n := len(p.to.faults()) - before; n > 0 {
		return peer.Report{Attempts: 1}, &peer.Error{Class: peer.ClassSkipped, Status: 200, Refused: n}
	}
	return peer.Report{Attempts: 1}, nil
}

// itemsOf reads a push back into what it was made of, in the order in which it is applied.
func itemsOf(body []byte) (items []item) {
	var m struct {
		Memories, Links               []json.RawMessage
		Deletions, Archives, Restores []string
		NamespaceMeta                 []json.RawMessage `json:"namespace_meta"`
		NamespaceMetaClears           []string          `json:"namespace_meta_clears"`
	}
	_ = json.Unmarshal(body, &m)
	objects := func(in list, bodies []json.RawMessage, key string) {
		for _, b := range bodies {
			var fields map[string]any
			_ = json.Unmarshal(b, &fields)
			items = append(items, item{list: in, key: fmt.Sprint(fields[key]), body: b})
		}
	}
	keys := func(in list, list []string) {
		for _, key := range list {
			items = append(items, item{list: in, key: key})
		}
	}
	objects(memories, m.Memories, "id")
	keys(deletions, m.Deletions)
	keys(archives, m.Archives)
	keys(restores, m.Restores)
	objects(links, m.Links, "source_id")
	objects(namespaceMeta, m.NamespaceMeta, "namespace")
	keys(namespaceClears, m.NamespaceMetaClears)
	return items
}

// checkRenewal draws two histories of the same ids: what the peer has is a mixture of both, in any order; what the store has is the state of one. Pushing that, also
// after any number of tries that stopped half-way, leaves just that at the peer.
func checkRenewal(t *rapid.T, prefix string, to target) {
	log, want := history(t, prefix)
	other, _ := history(t, prefix)
	most := limits{items: rapid.IntRange(1, 10).Draw(t, "items"), bytes: rapid.IntRange(400, 4000).Draw(t, "bytes")}
	mixture := rapid.Permutation(slices.Concat(log, other)).Draw(t, "mixture")
	for _, e := range mixture[:rapid.IntRange(0, len(mixture)).Draw(t, "arrived")] {
		for _, push := range plan([]entry{e}, most) {
			to.apply(push)
		}
	}
	c := currentOf(want, prefix)
	for _, pushes := range rapid.SliceOfN(rapid.IntRange(0, 10), 0, 2).Draw(t, "tries") {
		p := &applying{to: to, left: pushes}
		_, _ = c.bring(context.Background(), p, "c", isolation{parts: p}, "ai:leader", most)
	}
	p := &applying{to: to, left: 1000}
	d, _ := c.bring(context.Background(), p, "c", isolation{parts: p}, "ai:leader", most)
	got := to.state(t)
	got.Pendings, want.Pendings = nil, nil // written over, as they are
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(link{})); diff != "" || d.err != nil || len(d.refused) > 0 {
		t.Fatalf("%v, refused %v, (-writer +receiver):\n%s%s%s", d.err, d.refused, diff, describe(mixture), describePushes(p.pushes))
	}
}

func TestRenewalReplacesWhateverIsThere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		checkRenewal(t, "", newReceiver())
	})
}

func TestRenewalAtTheReferencePeer(t *testing.T) {
	t.Parallel()
	p, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: t.TempDir(), Sync: refpeer.Off})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		prefix := fmt.Sprintf("r%d-", n)
		checkRenewal(rt, prefix, &reference{peer: p, prefix: prefix})
	})
}

// What comes along with a subject is somebody's too: if it is refused after it was deleted, it must not be lost.
func TestWhatComesAlongIsASubject(t *testing.T) {
	t.Parallel()
	c := &current{
		renewed:   map[string]bool{"x": true, "taker": true},
		subjectOf: map[string]subject{"memory x": {Kind: aMemory, Key: "x", Method: renew}},
		memories: []*memoryState{
			{id: "x", archived: []byte(`{}`), archiveAt: slot{"ns", "T"}},
			{id: "taker", live: []byte(`{}`), at: slot{"ns", "T"}},
		},
		standards: []use{{Key: "ns", Of: "taker", Body: []byte(`{}`)}},
		links:     []use{{Key: "takerx", Of: "taker", And: "y", Body: []byte(`{}`)}},
	}
	items, owners := c.items()
	var got []string
	for _, it := range items {
		if owner, ok := owners[it.entry.ID]; ok {
			got = append(got, owner.name())
		} else if it.list != links {
			t.Errorf("nobody answers for %s", it.key)
		}
	}
	for _, want := range []string{"memory x", "memory taker", "namespace ns"} {
		if !slices.Contains(got, want) {
			t.Errorf("got owners %s, want %s, too", strings.Join(got, ", "), want)
		}
	}
}
