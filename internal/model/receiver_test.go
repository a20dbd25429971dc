package model

import (
	"math/rand/v2"
	"testing"
)

// The rules of wire.md 6.1 and 6.2, as far as memories of one title go.
func TestReceiver(t *testing.T) {
	t.Parallel()
	m, err := newModel(Config{History: "SDsd", Peers: 1, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	const storeA, storeB, deleteA, deleteB = items(1), items(3), deletion, deletion + 1
	a, b := memory{id: 1, version: 1}, memory{id: 2, version: 3}
	for _, tt := range []struct {
		name string
		has  memory
		item items
		want memory
	}{
		{"a store of what is not there is inserted", memory{}, storeA, a},
		{"an older store loses", memory{id: 1, version: 2}, storeA, memory{id: 1, version: 2}},
		{"a store of another id with the title is merged into the row", a, storeB, memory{id: 1, version: 3}},
		{"an older one of another id changes nothing", b, storeA, b},
		{"a delete leaves nothing", a, deleteA, memory{}},
		{"a delete of another id does nothing", b, deleteA, b},
		{"a delete goes by the id, whatever the content is", memory{id: 1, version: 3}, deleteA, memory{}},
		{"and misses content under another id", memory{id: 1, version: 3}, deleteB, memory{id: 1, version: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := m.apply(tt.has, tt.item); got != tt.want {
				t.Errorf("got %s, want %s", m.tellMemory(got), m.tellMemory(tt.want))
			}
		})
	}
}

// all is the number of the last entry.
func (m *model) all() uint8 { return uint8(len(m.log)) } //nolint:gosec // four at most

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		history string
		from    uint8
		want    [2]string
	}{
		{"SS", 0, [2]string{"store a, version 1; store a, version 2"}},
		{"SS", 1, [2]string{"store a, version 2"}},
		{"SD", 0, [2]string{"delete a"}},
		{"SDS", 0, [2]string{"delete a", "store a, version 3"}},
		{"SDs", 0, [2]string{"delete a", "store b, version 3"}},
		{"SDsd", 0, [2]string{"delete a; delete b"}},
	} {
		m, err := newModel(Config{History: tt.history, Peers: 1, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		got := m.plan(tt.from, m.all())
		if got := [2]string{m.tellItems(got[0]), m.tellItems(got[1])}; got != tt.want {
			t.Errorf("%s after %d: got %q, want %q", tt.history, tt.from, got, tt.want)
		}
	}
}

// A state and its mirror images have one canonical form, on random ways through the model.
func TestMirrorImagesAreOne(t *testing.T) {
	t.Parallel()
	m, err := newModel(Config{History: "SDs", Peers: 2}.with(faults{crashes: 1, unknowns: 2, expiries: 1}))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a walk that can be taken again
	different := 0
	for range 200 {
		s := m.start()
		for range 60 {
			var next []state
			m.next(s, func(_ step, to state) { next = append(next, to) })
			if len(next) == 0 {
				break
			}
			s = next[random.IntN(len(next))]
			want := m.canon(s)
			for _, mirrored := range []state{s.swapPeers(), s.swapWorkers(0, 1, 2), s.swapPeers().swapWorkers(0, 1, 2), want} {
				if mirrored != s {
					different++
				}
				if m.canon(mirrored) != want {
					t.Fatalf("a mirror image has another canonical form: %+v", s)
				}
			}
		}
	}
	if different == 0 {
		t.Error("every state was its own mirror image")
	}
}
