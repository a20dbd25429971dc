package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

const parkedMemory = `{"id": "m", "namespace": "other", "title": "T", "content": "C", "tier": "long", "source": "api"}`

func action(change ...func(*outbox.PendingAction)) outbox.PendingAction {
	p := outbox.PendingAction{ID: "p-1", ActionType: "store", Namespace: here, Payload: json.RawMessage(parkedMemory), RequestedBy: "ai:a"}
	for _, c := range change {
		c(&p)
	}
	return p
}

func removing(id string) func(*outbox.PendingAction) {
	return func(p *outbox.PendingAction) {
		p.ActionType, p.MemoryID, p.Payload = "delete", id, json.RawMessage("null")
	}
}

func park(t *testing.T, pool *pgxpool.Pool, p outbox.PendingAction) outbox.EntryID {
	t.Helper()
	return must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Pending(t.Context(), tx, p) })
}

func decideIt(t *testing.T, pool *pgxpool.Pool, approved bool) outbox.Decided {
	t.Helper()
	return must(t, pool, func(tx pgx.Tx) (outbox.Decided, error) {
		return outbox.Decide(t.Context(), tx, outbox.Decision{ID: "p-1", Approved: approved, Decider: "ai:boss"})
	})
}

func TestPending(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	at := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	first := action(func(p *outbox.PendingAction) {
		p.MemoryID, p.RequestedAt = "m", at
		p.Approvals = []outbox.Approval{{AgentID: "ai:b", ApprovedAt: at}}
	})
	want := map[string]any{
		"id": "p-1", "action_type": "store", "memory_id": "m", "namespace": here, "requested_by": "ai:a",
		"requested_at": "2025-01-02T03:04:05.000000+00:00", "status": "pending",
		"payload": map[string]any{
			"id": "m", "namespace": "other", "title": "T", "content": "C", "tier": "long", "source": "api",
		},
		"approvals": []any{map[string]any{"agent_id": "ai:b", "approved_at": "2025-01-02T03:04:05.000000+00:00"}},
	}
	if diff := cmp.Diff(want, payload(t, pool, park(t, pool, first))); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	// It can be changed while nobody has decided it. The time of the request stays unless it is given.
	want["payload"], want["action_type"], want["approvals"] = nil, "delete", []any{}
	if diff := cmp.Diff(want, payload(t, pool, park(t, pool, action(removing("m"))))); diff != "" {
		t.Errorf("payload of the change (-want +got):\n%s", diff)
	}
	wantLog(t, pool, 0, "pending team/notes p-1", "pending team/notes p-1")
}

func TestPendingRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	park(t, pool, action())
	put := func(p outbox.PendingAction) error {
		_, err := try(t.Context(), pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Pending(t.Context(), tx, p) })
		return err
	}
	for name, c := range map[string]struct {
		change func(*outbox.PendingAction)
		field  string
	}{
		"no id":                  {func(p *outbox.PendingAction) { p.ID = "" }, "id"},
		"action type":            {func(p *outbox.PendingAction) { p.ActionType = " " }, "action_type"},
		"action type, not UTF-8": {func(p *outbox.PendingAction) { p.ActionType = "a\xff" }, "action_type"},
		"memory id":              {func(p *outbox.PendingAction) { p.MemoryID = "a/b" }, "memory_id"},
		"namespace":              {func(p *outbox.PendingAction) { p.Namespace = "a b" }, "namespace"},
		"namespace changed":      {func(p *outbox.PendingAction) { p.Namespace = there }, "namespace"},
		"no payload":             {func(p *outbox.PendingAction) { p.Payload = nil }, "payload"},
		"payload with NUL":       {func(p *outbox.PendingAction) { p.Payload = json.RawMessage(`"\u0000"`) }, "payload"},
		"requested by":           {func(p *outbox.PendingAction) { p.RequestedBy = "a b" }, "requested_by"},
		"approval":               {func(p *outbox.PendingAction) { p.Approvals = []outbox.Approval{{AgentID: "ai:b"}} }, "approvals"},
	} {
		wantRefused(t, name, put(action(c.change)), c.field)
	}
	for name, wire := range map[string]string{
		"decided already": `{"id": "p-2", "action_type": "x", "namespace": "n", "payload": 1, "requested_by": "ai:a", "status": "approved"}`,
		"no payload":      `{"id": "p-2", "action_type": "x", "namespace": "n", "requested_by": "ai:a"}`,
		"unknown field":   `{"id": "p-2", "action_type": "x", "namespace": "n", "payload": 1, "requested_by": "ai:a", "decided_by": "ai:b"}`,
		"bad time":        `{"id": "p-2", "action_type": "x", "namespace": "n", "payload": 1, "requested_by": "ai:a", "requested_at": "now"}`,
	} {
		if _, err := pool.Exec(t.Context(), `select pending_put($1::jsonb)`, wire); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	decideIt(t, pool, false)
	if err := put(action()); !errors.Is(err, outbox.ErrDecided) {
		t.Errorf("decided: got %v, want %v", err, outbox.ErrDecided)
	}
}

func TestDecideRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	park(t, pool, action())
	decide := func(d outbox.Decision) error {
		_, err := try(t.Context(), pool, func(tx pgx.Tx) (outbox.Decided, error) { return outbox.Decide(t.Context(), tx, d) })
		return err
	}
	wantRefused(t, "decider", decide(outbox.Decision{ID: "p-1"}), "decider")
	wantRefused(t, "id", decide(outbox.Decision{Decider: "ai:a"}), "id")
	wantRefused(t, "not UTF-8", decide(outbox.Decision{ID: "p-1", Decider: "\xff"}), "decider")
	if err := decide(outbox.Decision{ID: "p-2", Decider: "ai:a"}); !errors.Is(err, outbox.ErrNotFound) {
		t.Errorf("unknown: got %v, want %v", err, outbox.ErrNotFound)
	}
	if _, err := pool.Exec(t.Context(), `select pending_decide('p-1', null, 'ai:a')`); err == nil {
		t.Error("neither approved nor rejected: got no error")
	}
	decideIt(t, pool, false)
	for name, d := range map[string]outbox.Decision{
		"otherwise":  {ID: "p-1", Approved: true, Decider: "ai:boss"},
		"by another": {ID: "p-1", Decider: "ai:other"},
	} {
		if err := decide(d); !errors.Is(err, outbox.ErrDecided) {
			t.Errorf("%s: got %v, want %v", name, err, outbox.ErrDecided)
		}
	}
}

// A rejection, and an approval of what is not known here, only note the decision.
func TestDecideNotes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change   func(*outbox.PendingAction)
		approved bool
		status   string
	}{
		"rejected store":                {func(*outbox.PendingAction) {}, false, "rejected"},
		"unknown action":                {func(p *outbox.PendingAction) { p.ActionType = "promote" }, true, "approved"},
		"store of something else":       {func(p *outbox.PendingAction) { p.Payload = json.RawMessage(`{"id": "m"}`) }, true, "approved"},
		"delete without memory":         {removing(""), true, "approved"},
		"delete of what was never here": {removing("never"), true, "approved"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			park(t, pool, action(c.change))
			d := decideIt(t, pool, c.approved)
			if d.Produced != 0 {
				t.Errorf("got entry %d produced, want none", d.Produced)
			}
			want := map[string]any{"id": "p-1", "approved": c.approved, "decider": "ai:boss"}
			if name == "delete of what was never here" {
				want["deletes"] = "never" // for the push builder alone: a peer may have it
			}
			if diff := cmp.Diff(want, payload(t, pool, d.Entry)); diff != "" {
				t.Errorf("payload (-want +got):\n%s", diff)
			}
			if n := count(t, pool, `select count(*) from pending_actions where status = $1 and decided_by = 'ai:boss' and decided_at is not null`, c.status); n != 1 {
				t.Errorf("got %d actions %s, want 1", n, c.status)
			}
			decideIt(t, pool, c.approved)
			wantLog(t, pool, 0, "pending team/notes p-1", "decision team/notes p-1", "decision team/notes p-1")
		})
	}
}

// Peers do what is approved when they get the decision, so it comes after what was there before, and what it produced here after it.
func TestApprovedStore(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m", in(far)))
	del(t, pool, "m")
	store(t, pool, memory("o", in(there)))
	park(t, pool, action())
	since := newest(t, pool)
	d := decideIt(t, pool, true)
	if got := payload(t, pool, d.Produced); got["id"] != "m" || got["version"] != 1.0 {
		t.Errorf("got produced %v, want the store of m", got)
	}
	// Again, after the memory has changed: it is sent as it is now.
	store(t, pool, memory("m", in(there), func(m *outbox.Memory) { m.Title = "T" }))
	again := decideIt(t, pool, true)
	if got := payload(t, pool, again.Produced); got["content"] != "content of m" {
		t.Errorf("got produced %v, want the memory as it is now", got)
	}
	del(t, pool, "m")
	if third := decideIt(t, pool, true); third.Produced != 0 {
		t.Errorf("after the memory was deleted: got entry %d produced, want none", third.Produced)
	}
	wantLog(t, pool, since,
		"decision team/notes p-1 < delete m, store o",
		"store other m < delete m, decision p-1",
		"store other m",
		"decision team/notes p-1 < store m",
		"store other m < decision p-1",
		"delete other m",
		"decision team/notes p-1 < delete m",
	)
}

func TestApprovedDelete(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m", in(there)))
	store(t, pool, memory("l", in(far)))
	link(t, pool, "l", "m")
	park(t, pool, action(removing("m")))
	since := newest(t, pool)
	d := decideIt(t, pool, true)
	if got := payload(t, pool, d.Entry)["deletes"]; got != "m" {
		t.Errorf("got a decision that deletes %v, want m", got)
	}
	again := decideIt(t, pool, true)
	if again.Produced != d.Produced {
		t.Errorf("repeated: got entry %d produced, want %d again", again.Produced, d.Produced)
	}
	if got, ok := payload(t, pool, again.Entry)["deletes"]; ok {
		t.Errorf("got a repeated decision that deletes %v, want none: peers execute it once", got)
	}
	// What was stored since is not deleted by a repetition.
	store(t, pool, memory("m", in(there)))
	if third := decideIt(t, pool, true); third.Produced != 0 {
		t.Errorf("after a new store: got entry %d produced, want none", third.Produced)
	}
	if n := count(t, pool, `select count(*) from memories where id = 'm'`); n != 1 {
		t.Errorf("got %d memories m, want the new one", n)
	}
	wantLog(t, pool, since,
		"decision team/notes p-1 < store m, link lm",
		"delete other m < link lm, decision p-1",
		"decision team/notes p-1 < delete m",
		"store other m",
		"decision team/notes p-1 < store m",
	)
}

// An approval whose store is refused is refused as a whole.
func TestApprovedStoreIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("o", in(there), func(m *outbox.Memory) { m.Title = "T" }))
	park(t, pool, action())
	since := newest(t, pool)
	_, err := try(t.Context(), pool, func(tx pgx.Tx) (outbox.Decided, error) {
		return outbox.Decide(t.Context(), tx, outbox.Decision{ID: "p-1", Approved: true, Decider: "ai:boss"})
	})
	if !errors.Is(err, outbox.ErrTitleTaken) {
		t.Errorf("got %v, want %v", err, outbox.ErrTitleTaken)
	}
	wantLog(t, pool, since)
	if n := count(t, pool, `select count(*) from pending_actions where status = 'pending'`); n != 1 {
		t.Errorf("got %d pending actions, want it undecided", n)
	}
}

// Approving a delete of what is not here does nothing here, but a peer deletes what it has by then: what brings the memory back comes after the decision.
func TestApprovedDeleteOfWhatIsNotHere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(t *testing.T, pool *pgxpool.Pool)
		after  func(t *testing.T, pool *pgxpool.Pool)
		want   []string
	}{
		"an archived memory": {
			func(t *testing.T, pool *pgxpool.Pool) {
				t.Helper()
				store(t, pool, memory("m", in(there)))
				archive(t, pool, "m")
			},
			func(t *testing.T, pool *pgxpool.Pool) { t.Helper(); restore(t, pool, "m") },
			[]string{"decision team/notes p-1 < archive m", "restore other m < decision p-1"},
		},
		"one that never was": {
			func(*testing.T, *pgxpool.Pool) {},
			func(t *testing.T, pool *pgxpool.Pool) { t.Helper(); store(t, pool, memory("m", in(there))) },
			[]string{"decision team/notes p-1", "store other m < decision p-1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			c.before(t, pool)
			park(t, pool, action(removing("m")))
			since := newest(t, pool)
			decideIt(t, pool, true)
			c.after(t, pool)
			wantLog(t, pool, since, c.want...)
		})
	}
}

// A decision about a memory and a store that is not there yet wait for each other.
func TestDecideAgainstStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		storeFirst bool
		want       []string
	}{
		"store first":    {true, []string{"store other m", "decision team/notes p-1 < store m", "delete other m < decision p-1"}},
		"decision first": {false, []string{"decision team/notes p-1", "store other m < decision p-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			park(t, pool, action(removing("m")))
			since := newest(t, pool)
			ctx := context.WithoutCancel(t.Context())
			storing := func(tx pgx.Tx) error { _, err := outbox.Store(ctx, tx, memory("m", in(there))); return err }
			deciding := func(tx pgx.Tx) error {
				_, err := outbox.Decide(ctx, tx, outbox.Decision{ID: "p-1", Approved: true, Decider: "ai:boss"})
				return err
			}
			first, second := deciding, storing
			if c.storeFirst {
				first, second = storing, deciding
			}
			if err := during(t, pool, first, second); err != nil {
				t.Fatal(err)
			}
			wantLog(t, pool, since, c.want...)
		})
	}
}
