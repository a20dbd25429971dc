package jobs_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/refpeer"
	"quorumbox/outbox"
)

// step is one operation of the ten kinds: checklist rows 34 to 36 and 52 to 61.
type step struct {
	name  string
	write func(ctx context.Context, tx pgx.Tx) ([]outbox.EntryID, error)
	want  []string // the pushes of it when it travels alone, as [request.String]
	state holdings // of every peer afterwards, if the steps before it were taken
}

const team = "team"

func note(id string) outbox.Memory {
	return outbox.Memory{ID: id, Namespace: team, Title: "title of " + id, Content: "content of " + id}
}

// steps uses every kind, and each from a state in which it changes something at a peer.
func steps() []step {
	store := func(m outbox.Memory) func(context.Context, pgx.Tx) ([]outbox.EntryID, error) {
		return func(ctx context.Context, tx pgx.Tx) ([]outbox.EntryID, error) {
			s, err := outbox.Store(ctx, tx, m)
			return []outbox.EntryID{s.Entry}, err
		}
	}
	one := func(write func(context.Context, pgx.Tx) (outbox.EntryID, error)) func(context.Context, pgx.Tx) ([]outbox.EntryID, error) {
		return func(ctx context.Context, tx pgx.Tx) ([]outbox.EntryID, error) {
			id, err := write(ctx, tx)
			return []outbox.EntryID{id}, err
		}
	}
	park := func(id, memory string) func(context.Context, pgx.Tx) ([]outbox.EntryID, error) {
		return one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) {
			return outbox.Pending(ctx, tx, outbox.PendingAction{
				ID: id, ActionType: "store", Namespace: team, RequestedBy: "ai:a",
				Payload: fmt.Appendf(nil, `{"id":%q,"namespace":"team","title":%[1]q,"content":"c","tier":"long","source":"api"}`, memory),
			})
		})
	}
	decide := func(d outbox.Decision) func(context.Context, pgx.Tx) ([]outbox.EntryID, error) {
		return func(ctx context.Context, tx pgx.Tx) ([]outbox.EntryID, error) {
			decided, err := outbox.Decide(ctx, tx, d)
			return slices.DeleteFunc([]outbox.EntryID{decided.Entry, decided.Produced}, func(id outbox.EntryID) bool { return id == 0 }), err
		}
	}
	withVector := note("m-2")
	withVector.Embedding = &outbox.Embedding{Model: "model", Vector: []float32{0.6, 0, 0.8}}
	rejected := []string{"p-1 rejected"}
	both := []string{"p-1 rejected", "p-2 approved"}
	vector := []string{"m-2"}
	return []step{
		{"store", store(note("m-1")), []string{sent("m-1", "memories=m-1")}, holdings{Live: []string{"m-1"}}},
		{
			"store with a vector", store(withVector),
			[]string{sent("m-2", "embeddings=m-2", "memories=m-2")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector},
		},
		{
			"link", one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) {
				return outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: "m-1", TargetID: "m-2", Relation: "related_to"})
			}),
			[]string{sent("m-1m-2", "links=m-1>m-2")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector, Links: []string{"m-1>m-2"}},
		},
		{
			"namespace set", one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) {
				return outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: team, StandardID: "m-2", ParentNamespace: "org"})
			}),
			[]string{sent(team, "namespace_meta=team<m-2^org")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector, Links: []string{"m-1>m-2"}, Standards: []string{"team<m-2^org"}},
		},
		{
			"namespace clear", func(ctx context.Context, tx pgx.Tx) ([]outbox.EntryID, error) {
				return outbox.NamespaceClear(ctx, tx, team)
			},
			[]string{sent(team, "namespace_meta_clears=team")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector, Links: []string{"m-1>m-2"}},
		},
		{
			"pending", park("p-1", "m-5"),
			[]string{sent("p-1", "pendings=p-1")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector, Links: []string{"m-1>m-2"}, Pendings: []string{"p-1 pending"}},
		},
		{
			"rejection", decide(outbox.Decision{ID: "p-1", Decider: "ai:boss"}),
			[]string{sent("p-1", "pending_decisions=p-1:false")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector, Links: []string{"m-1>m-2"}, Pendings: rejected},
		},
		{
			"second pending", park("p-2", "m-6"),
			[]string{sent("p-2", "pendings=p-2")},
			holdings{Live: []string{"m-1", "m-2"}, Vectors: vector, Links: []string{"m-1>m-2"}, Pendings: []string{"p-1 rejected", "p-2 pending"}},
		},
		{
			"approval", decide(outbox.Decision{ID: "p-2", Approved: true, Decider: "ai:boss"}),
			[]string{sent("p-2", "pending_decisions=p-2:true"), sent("m-6", "memories=m-6")},
			holdings{Live: []string{"m-1", "m-2", "m-6"}, Vectors: vector, Links: []string{"m-1>m-2"}, Pendings: both},
		},
		{
			"archive", one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) {
				return outbox.Archive(ctx, tx, "m-1", "old")
			}),
			[]string{sent("m-1", "archives=m-1")},
			holdings{Live: []string{"m-2", "m-6"}, Vectors: vector, Archived: []string{"m-1"}, Pendings: both},
		},
		{
			// The receiver gives what it restores a time of its own, by which later stores would lose; so the row is replaced by ours.
			"restore", one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) { return outbox.Restore(ctx, tx, "m-1") }),
			[]string{sent("m-1", "restores=m-1"), sent("m-1", "deletions=m-1"), sent("m-1", "memories=m-1")},
			holdings{Live: []string{"m-1", "m-2", "m-6"}, Vectors: vector, Pendings: both},
		},
		{
			"delete", one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) { return outbox.Delete(ctx, tx, "m-2") }),
			[]string{sent("m-2", "deletions=m-2")},
			holdings{Live: []string{"m-1", "m-6"}, Pendings: both},
		},
		{
			"consolidate", one(func(ctx context.Context, tx pgx.Tx) (outbox.EntryID, error) {
				return outbox.Consolidate(ctx, tx, note("m-7"), []string{"m-6", "m-1"})
			}),
			[]string{sent("m-7", "deletions=m-1,m-6", "memories=m-7")},
			holdings{Live: []string{"m-7"}, Pendings: both},
		},
	}
}

// Two peers acknowledge: one request each, exact in its fields and key.
func TestLanesTwoPeersAck(t *testing.T) {
	t.Parallel()
	walk(t, setting{}, func(*testing.T, *mesh) {}, nothing, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		wantBatch(t, got, []string{"a", "b"}, "")
		for _, n := range m.nodes {
			wantRequests(t, n, got.want)
		}
	})
}

// No peer can be reached: the quorum is not met after one retry each, and once they are back they get everything all the same.
func TestLanesPartitionMinority(t *testing.T) {
	t.Parallel()
	walk(t, setting{writes: 2}, func(t *testing.T, m *mesh) {
		t.Helper()
		for _, n := range m.nodes {
			n.fault(t, refpeer.Fault{Mode: refpeer.ModeStatus, Status: 503})
		}
	}, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		wantBatch(t, got, []string{}, outbox.ReasonUnreachable)
		for _, n := range m.nodes {
			wantRetried(t, n.got())
			n.fault(t)
		}
	}, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		for id, n := range m.nodes {
			requests := shown(n.got())
			if last := requests[len(requests)-len(got.want):]; !slices.Equal(last, got.want) {
				t.Errorf("%s: the last requests are %q, want %q", id, last, got.want)
			}
		}
		if n := m.scalar(`select count(*) from batches where verdict = 'met'`); n != 0 {
			t.Errorf("%d verdicts changed afterwards", n)
		}
	})
}

// A peer acknowledges other ids: that is no acknowledgement and not worth a retry at once. Its peer retry asks again.
func TestLanesIDDrift(t *testing.T) {
	t.Parallel()
	walk(t, setting{jobs: patient}, func(t *testing.T, m *mesh) {
		t.Helper()
		m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeDrift, Count: 1})
	}, nothing, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		wantBatch(t, got, []string{"a"}, outbox.ReasonIDDrift)
		wantRequests(t, m.nodes["a"], got.want)
		wantRequests(t, m.nodes["b"], slices.Concat(got.want[:1], got.want))
	})
}

// A peer fails once: it is asked once more within the ack timeout of two seconds, and its acknowledgement counts (checklist row 31).
func TestLanesTransientFailure(t *testing.T) {
	t.Parallel()
	walk(t, setting{}, func(t *testing.T, m *mesh) {
		t.Helper()
		m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeStatus, Status: 503, Count: 1})
	}, nothing, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		wantBatch(t, got, []string{"a", "b"}, "")
		wantRequests(t, m.nodes["a"], got.want)
		wantRequests(t, m.nodes["b"], slices.Concat(got.want[:1], got.want))
		wantRetried(t, m.nodes["b"].got())
	})
}

// A peer applies the push and its answer is lost: the retry finds it applied, acknowledges, and nothing is there twice (checklist row 32).
func TestLanesLostAnswer(t *testing.T) {
	t.Parallel()
	walk(t, setting{}, func(t *testing.T, m *mesh) {
		t.Helper()
		m.nodes["b"].fault(t, refpeer.Fault{Mode: refpeer.ModeLoseAnswer, Count: 1})
	}, nothing, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		wantBatch(t, got, []string{"a", "b"}, "")
		wantRequests(t, m.nodes["b"], slices.Concat(got.want[:1], got.want))
		wantRetried(t, m.nodes["b"].got())
	})
}

// Clearing several namespaces is one operation, whose key is all of them (checklist row 60). They are of one lane here: lanes are judged
// apart.
func TestLaneClearOfSeveralNamespaces(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{})
	var other string
	err := m.pool.QueryRow(t.Context(), `
		select n
		from (select 'team-' || i as n, i from generate_series(1, 2000) i) s
		where outbox_lane(n) = outbox_lane($1)
		order by i
		limit 1`, team).Scan(&other)
	if err != nil {
		t.Fatal(err)
	}
	var entries []outbox.EntryID
	m.inTx(func(tx pgx.Tx) (err error) {
		entries, err = outbox.NamespaceClear(t.Context(), tx, team, other)
		return err
	})
	if v := m.await(entries...); v.Met != 2 {
		t.Errorf("got %+v, want both met", v)
	}
	m.settled()
	both := team + "," + other
	for _, n := range m.nodes {
		wantRequests(t, n, []string{sent(both, "namespace_meta_clears="+both)})
		wantHeaders(t, n.got())
	}
}

// Checklist row 37: one peer does not answer; the other one has the push all the while.
func TestLanesPeersArePushedConcurrently(t *testing.T) {
	t.Parallel()
	m := startMesh(t, setting{writes: 2})
	m.nodes["a"].fault(t, refpeer.Fault{Mode: refpeer.ModeHang})
	if v := m.await(m.store("m-1")...); !v.IsMet() {
		t.Errorf("got %+v, want met by b", v)
	}
	if a, b := m.nodes["a"].holds(t).Live, m.nodes["b"].holds(t).Live; len(a) != 0 || !slices.Equal(b, []string{"m-1"}) {
		t.Errorf("got %q at a and %q at b, want m-1 at b", a, b)
	}
	m.nodes["a"].fault(t)
	m.settled()
	if got := m.nodes["a"].holds(t).Live; !slices.Equal(got, []string{"m-1"}) {
		t.Errorf("a in the end: got %q, want m-1", got)
	}
}
