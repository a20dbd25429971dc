package jobs

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/pgtest"
)

// logBatch is a batch of a test's log; it has so many entries, 1 if 0.
type logBatch struct {
	lane    int16
	number  int64
	after   []batchRef
	entries int
}

// next writes a log and returns what a retry that holds lanes is given of it, and whether lanes wait for each other. others are lagging lanes that it does not
// hold.
func next(t *testing.T, log []logBatch, held, others []lag, most limits) (got []string, entangled bool) {
	t.Helper()
	pool := pgtest.New(t)
	for _, b := range log {
		var lanes []int16
		var numbers []int64
		for _, first := range b.after {
			lanes, numbers = append(lanes, first.Lane), append(numbers, first.Number)
		}
		_, err := pool.Exec(t.Context(), `
			with e as (
				insert into outbox (lane, namespace, kind, key) select $1, 'n', 'delete', 'k' || n from generate_series(1, $3) n returning id
			)
			insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed, after_lanes, after_numbers)
			select $1, $2, array_agg(id), min(id), max(id), sum(10), 0, 1, now(), 'met', 1, $4, $5 from e`,
			b.lane, b.number, max(b.entries, 1), lanes, numbers)
		if err != nil {
			t.Fatal(err)
		}
	}
	rows := map[peerLane]lag{}
	for _, list := range [][]lag{held, others} {
		for _, l := range list {
			rows[l.peerLane] = l
		}
	}
	s := &store{pool: pool}
	batches, entangled, err := s.loadNext(t.Context(), held, rows, most)
	if err != nil {
		t.Fatal(err)
	}
	got = []string{}
	for _, b := range batches {
		if len(b.Entries) != len(b.IDs) || len(b.IDs) == 0 {
			t.Errorf("batch %d of lane %d has %d entries, want %d", b.Number, b.Lane, len(b.Entries), len(b.IDs))
		}
		got = append(got, fmt.Sprintf("%d/%d", b.Lane, b.Number))
	}
	return got, entangled
}

func lagAt(lane int16, cursor, pushedTo int64) lag {
	return lag{peerLane: peerLane{"a", lane}, Cursor: cursor, PushedTo: pushedTo}
}

// What is pushed next is in an order in which nothing comes before what it needs.
func TestLoadNext(t *testing.T) {
	t.Parallel()
	// Memories move to and fro between lanes 1 and 2, and once from lane 3.
	moves := []logBatch{
		{lane: 1, number: 1},
		{lane: 2, number: 1, after: []batchRef{{1, 1}}},
		{lane: 1, number: 2, after: []batchRef{{2, 1}}},
		{lane: 2, number: 2, after: []batchRef{{1, 2}}},
		{lane: 3, number: 1},
		{lane: 1, number: 3, after: []batchRef{{3, 1}, {2, 2}}},
		{lane: 1, number: 4},
	}
	wide := limits{items: 100, bytes: 10_000}
	for name, c := range map[string]struct {
		log    []logBatch
		held   []lag
		others []lag
		most   limits
		want   []string
		free   bool // no lane waits for another one
	}{
		"all lanes are held": {
			moves,
			[]lag{lagAt(1, 0, 0), lagAt(2, 0, 0), lagAt(3, 0, 0)},
			nil, wide,
			[]string{"1/1", "2/1", "1/2", "3/1", "2/2", "1/3", "1/4"},
			false,
		},
		"in whatever order": {
			moves,
			[]lag{lagAt(3, 0, 0), lagAt(2, 0, 0), lagAt(1, 0, 0)},
			nil, wide,
			[]string{"3/1", "1/1", "2/1", "1/2", "2/2", "1/3", "1/4"},
			false,
		},
		"what a lane needs is held by somebody else": {
			moves,
			[]lag{lagAt(1, 0, 0), lagAt(2, 0, 0)},
			[]lag{lagAt(3, 0, 0)},
			wide,
			[]string{"1/1", "2/1", "1/2", "2/2"},
			false,
		},
		"the peer has what a lane needs": {
			moves,
			[]lag{lagAt(1, 1, 0)},
			[]lag{lagAt(2, 2, 2)},
			wide,
			[]string{"1/2", "1/3", "1/4"},
			true,
		},
		"a push is full": {
			moves,
			[]lag{lagAt(1, 0, 0), lagAt(2, 0, 0), lagAt(3, 0, 0)},
			nil,
			limits{items: 4, bytes: 10_000},
			[]string{"1/1", "2/1", "1/2", "2/2"},
			false,
		},
		"a push is full of bytes": {
			moves,
			[]lag{lagAt(1, 0, 0), lagAt(2, 0, 0), lagAt(3, 0, 0)},
			nil,
			limits{items: 100, bytes: 35},
			[]string{"1/1", "2/1", "1/2"},
			false,
		},
		"a batch does not fit with what it needs": {
			moves,
			[]lag{lagAt(1, 2, 0), lagAt(2, 1, 0), lagAt(3, 0, 0)},
			nil,
			limits{items: 2, bytes: 10_000},
			[]string{"2/2", "3/1"},
			false,
		},
		"one batch is larger than a push": {
			[]logBatch{{lane: 1, number: 1, entries: 9}, {lane: 1, number: 2}},
			[]lag{lagAt(1, 0, 0)},
			nil,
			limits{items: 4, bytes: 10_000},
			[]string{"1/1"},
			true,
		},
		"pushed before: just that again": {
			moves,
			[]lag{lagAt(1, 0, 1), lagAt(2, 0, 0), lagAt(3, 0, 0)},
			nil, wide,
			[]string{"1/1", "2/1", "3/1"},
			false,
		},
		"pushed before, with what it needs": {
			moves,
			[]lag{lagAt(1, 0, 3), lagAt(2, 0, 2), lagAt(3, 0, 1)},
			nil, wide,
			[]string{"1/1", "2/1", "1/2", "3/1", "2/2", "1/3"},
			false,
		},
		"pushed before, and more than a push": {
			moves,
			[]lag{lagAt(1, 0, 3), lagAt(2, 0, 2), lagAt(3, 0, 1)},
			nil,
			limits{items: 2, bytes: 10_000},
			[]string{"1/1", "2/1", "1/2", "3/1", "2/2", "1/3"},
			false,
		},
		"pushed before, each lane alone, and more than a push": {
			[]logBatch{{lane: 1, number: 1, entries: 3}, {lane: 2, number: 1, entries: 3}},
			[]lag{lagAt(1, 0, 1), lagAt(2, 0, 1)},
			nil,
			limits{items: 4, bytes: 10_000},
			[]string{"1/1"},
			true,
		},
		"pushed before with a lane that somebody else holds": {
			moves,
			[]lag{lagAt(1, 0, 2), lagAt(3, 0, 0)},
			[]lag{lagAt(2, 0, 1)},
			wide,
			[]string{"3/1"},
			false,
		},
		"no lane needs another": {
			[]logBatch{{lane: 1, number: 1}, {lane: 2, number: 1}, {lane: 1, number: 2}},
			[]lag{lagAt(1, 0, 0), lagAt(2, 0, 0)},
			nil, wide,
			[]string{"1/1", "1/2", "2/1"},
			true,
		},
		"there is nothing": {nil, []lag{lagAt(1, 0, 0)}, nil, wide, []string{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, entangled := next(t, c.log, c.held, c.others, c.most)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("batches (-want +got):\n%s", diff)
			}
			if entangled == c.free {
				t.Errorf("lanes wait for each other: %t", entangled)
			}
		})
	}
}

// A lane is read in parts, and all of it is found.
func TestLoadNextReadsOn(t *testing.T) {
	t.Parallel()
	var log []logBatch
	want := []string{}
	for n := range int64(2*lookAhead + 1) {
		log = append(log, logBatch{lane: 5, number: n + 1})
		want = append(want, fmt.Sprintf("5/%d", n+1))
	}
	got, _ := next(t, log, []lag{lagAt(5, 0, 0)}, nil, limits{items: 1000, bytes: 1 << 20})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}
