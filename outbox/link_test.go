package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

func TestLink(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("a"))
	store(t, pool, memory("b"))
	signature := make([]byte, 64)
	want := make([]any, 64)
	for i := range signature {
		signature[i] = byte(200 + i)
		want[i] = float64(byte(200 + i))
	}
	l := outbox.MemoryLink{
		SourceID: "a", TargetID: "b", Relation: "supersedes", CreatedAt: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC),
		Signature: signature, ObservedBy: "ai:leader", ValidFrom: "2026-06-15T00:00:00+00:00",
	}
	do := func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Link(t.Context(), tx, l) }
	first := must(t, pool, do)
	wantPayload := map[string]any{
		"source_id": "a", "target_id": "b", "relation": "supersedes", "created_at": "2025-01-02T03:04:05.000000+00:00",
		"signature": want, "observed_by": "ai:leader",
		"valid_from": "2026-06-15T00:00:00+00:00", // as it was signed, not as we write times
	}
	if diff := cmp.Diff(wantPayload, payload(t, pool, first)); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	// A repetition leaves the link as it is, whatever it says, and sends it again.
	l.Signature, l.CreatedAt = nil, time.Time{}
	if diff := cmp.Diff(wantPayload, payload(t, pool, must(t, pool, do))); diff != "" {
		t.Errorf("payload of the repetition (-want +got):\n%s", diff)
	}
	if n := count(t, pool, `select count(*) from memory_links`); n != 1 {
		t.Errorf("got %d links, want 1", n)
	}
	wantLog(t, pool, 0, "store team/notes a", "store team/notes b", "link team/notes ab", "link team/notes ab")
}

// A peer skips a link whose ends it does not have, and the entry that takes an end away must not overtake the link (wire.md 6.3 rules 1 and 2).
func TestLinkAcrossLanes(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("a"))
	store(t, pool, memory("b", in(there)))
	store(t, pool, memory("b2", in(there)))
	since := newest(t, pool)
	link(t, pool, "a", "b")
	archive(t, pool, "b")
	wantLog(t, pool, since, "link team/notes ab < store b2", "archive other b < link ab")
	if n := count(t, pool, `select count(*) from memory_links`); n != 0 {
		t.Errorf("got %d links of an archived memory, want none", n)
	}
	restore(t, pool, "b")
	if n := count(t, pool, `select count(*) from memory_links`); n != 0 {
		t.Errorf("got %d links of a restored memory, want none: the peers lost them", n)
	}
}

// What a link was goes with its source, but the delete of its target must still come after it.
func TestDeleteComesAfterALinkThatIsGone(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("a"))
	store(t, pool, memory("b", in(there)))
	link(t, pool, "a", "b")
	del(t, pool, "a")
	since := newest(t, pool)
	del(t, pool, "b")
	wantLog(t, pool, since, "delete other b < link ab")
}

// Of several links from one lane the delete must come after the one that is dispatched last, which is the last one appended.
func TestDeleteComesAfterTheLastLinkOfALane(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for _, id := range []string{"a1", "a2"} {
		store(t, pool, memory(id))
	}
	store(t, pool, memory("c", in(far)))
	store(t, pool, memory("b", in(there)))
	for _, id := range []string{"a2", "a1", "c"} {
		link(t, pool, id, "b")
	}
	since := newest(t, pool)
	del(t, pool, "b")
	wantLog(t, pool, since, "delete other b < link a1b, link cb")
}

func TestLinkRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	for _, id := range []string{"a", "b", "c"} {
		store(t, pool, memory(id))
	}
	for name, c := range map[string]struct {
		change func(*outbox.MemoryLink)
		field  string
	}{
		"source":              {func(l *outbox.MemoryLink) { l.SourceID = "a/b" }, "source_id"},
		"target":              {func(l *outbox.MemoryLink) { l.TargetID = "" }, "target_id"},
		"target not UTF-8":    {func(l *outbox.MemoryLink) { l.TargetID = "b\xff" }, "target_id"},
		"itself":              {func(l *outbox.MemoryLink) { l.TargetID = "a" }, "target_id"},
		"relation":            {func(l *outbox.MemoryLink) { l.Relation = "likes" }, "relation"},
		"short signature":     {func(l *outbox.MemoryLink) { l.Signature, l.ObservedBy = make([]byte, 63), "ai:a" }, "signature"},
		"anonymous signature": {func(l *outbox.MemoryLink) { l.Signature = make([]byte, 64) }, "observed_by"},
		"observer":            {func(l *outbox.MemoryLink) { l.ObservedBy = "/a" }, "observed_by"},
		"valid from":          {func(l *outbox.MemoryLink) { l.ValidFrom = "yesterday" }, "valid_from"},
		"valid until":         {func(l *outbox.MemoryLink) { l.ValidUntil = "2025-02-30T00:00:00Z" }, "valid_until"},
	} {
		l := outbox.MemoryLink{SourceID: "a", TargetID: "b", Relation: "related_to"}
		c.change(&l)
		_, err := try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Link(ctx, tx, l) })
		wantRefused(t, name, err, c.field)
	}
	for _, l := range []string{
		`{"source_id": "a", "target_id": "b", "relation": "related_to", "attest_level": "unsigned"}`,
		`{"source_id": "a", "target_id": "b", "relation": "related_to", "observed_by": "ai:a", "signature": [` + strings.Repeat("256,", 63) + `1]}`,
		`{"source_id": "a", "target_id": "b"}`,
		`[]`,
	} {
		if _, err := pool.Exec(ctx, `select memory_link($1::jsonb)`, l); err == nil {
			t.Errorf("memory_link(%s): got no error", l)
		}
	}
	for _, ends := range [][2]string{{"a", "gone"}, {"gone", "a"}} {
		_, err := try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) {
			return outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: ends[0], TargetID: ends[1], Relation: "related_to"})
		})
		if !errors.Is(err, outbox.ErrNotFound) || !strings.Contains(err.Error(), "no memory gone") {
			t.Errorf("%v: got %v, want %v that names the end", ends, err, outbox.ErrNotFound)
		}
	}

	// Receivers refuse circles of reflections.
	reflects := func(source, target string) error {
		_, err := try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) {
			return outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: source, TargetID: target, Relation: "reflects_on"})
		})
		return err
	}
	if err := errors.Join(reflects("a", "b"), reflects("b", "c"), reflects("a", "c")); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "circle", reflects("c", "a"), "relation")
}

// A link waits for a delete of its end and then finds it gone; a delete waits for a link to the memory and comes after it.
func TestLinkAgainstDelete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		linkFirst bool
		want      []string
	}{
		"delete first": {false, []string{"delete other b"}},
		"link first":   {true, []string{"link team/notes ab < store b", "delete other b < link ab"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			store(t, pool, memory("a"))
			store(t, pool, memory("b", in(there)))
			since := newest(t, pool)
			ctx := context.WithoutCancel(t.Context())
			link := func(tx pgx.Tx) error {
				_, err := outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: "a", TargetID: "b", Relation: "related_to"})
				return err
			}
			remove := func(tx pgx.Tx) error { _, err := outbox.Delete(ctx, tx, "b"); return err }
			if c.linkFirst {
				if err := during(t, pool, link, remove); err != nil {
					t.Fatal(err)
				}
			} else if err := during(t, pool, remove, link); !errors.Is(err, outbox.ErrNotFound) {
				t.Errorf("got %v, want %v", err, outbox.ErrNotFound)
			}
			wantLog(t, pool, since, c.want...)
		})
	}
}

// Peers lose links and standards of a memory that is renamed or moved, by their cascade; they are sent again after its store (wire.md 6.3 rule 7).
func TestMoveSendsLinksAndStandardsAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m"))
	store(t, pool, memory("near"))
	store(t, pool, memory("off", in(far)))
	link(t, pool, "m", "near")
	link(t, pool, "m", "off")
	link(t, pool, "off", "m")
	setStandard(t, pool, far, "m")
	setStandard(t, pool, here, "m")

	since := newest(t, pool)
	store(t, pool, memory("m", in(there)))
	wantLog(t, pool, since,
		"delete team/notes m < namespace_set third", // the newest use of that lane; the link from "off" is before it there
		"store other m < delete m",
		"link other mnear < delete m", // the newest entry of "near"'s lane
		"link other moff < namespace_set third",
		"link third offm < link moff", // the newest entry of m's lane, which is after its store
		"namespace_set team/notes team/notes < link moff",
		"namespace_set third third < link moff",
	)

	// The next one depends on what was sent again, not on what was before.
	since = newest(t, pool)
	del(t, pool, "m")
	wantLog(t, pool, since, "delete other m < namespace_set team/notes, namespace_set third")

	if n := count(t, pool, `select count(*) from memory_links`) + count(t, pool, `select count(*) from namespace_meta`); n != 0 {
		t.Errorf("got %d links and standards of a deleted memory, want none", n)
	}
}

// A rename in the same namespace sends them again too, and an update does not.
func TestRenameSendsLinksAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m"))
	store(t, pool, memory("n"))
	link(t, pool, "n", "m")
	since := newest(t, pool)
	store(t, pool, memory("m", func(m *outbox.Memory) { m.Content = "other" }))
	store(t, pool, memory("m", func(m *outbox.Memory) { m.Title = "other" }))
	wantLog(t, pool, since, "store team/notes m", "delete team/notes m", "store team/notes m", "link team/notes nm")
}

// A delete of a link's other end waits for the move that sends the link again, and comes after it.
func TestDeleteAgainstMoveOfTheOtherEnd(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m"))
	store(t, pool, memory("off", in(far)))
	link(t, pool, "m", "off")
	since := newest(t, pool)
	ctx := context.WithoutCancel(t.Context())
	err := during(t, pool,
		func(tx pgx.Tx) error { _, err := outbox.Store(ctx, tx, memory("m", in(there))); return err },
		func(tx pgx.Tx) error { _, err := outbox.Delete(ctx, tx, "off"); return err })
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, pool, since, "delete team/notes m", "store other m < delete m", "link other moff < store off", "delete third off < link moff, link moff")
}

// What psql sends is text; the functions take it.
func TestSQLFunctionsTakeText(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for _, sql := range []string{
		`select memory_store('{"id": "a", "namespace": "n", "title": "A", "content": "x", "tier": "long", "source": "api"}', '{"model": "mini", "vector": [0.5, 1e-45, -3]}')`,
		`select memory_store('{"id": "b", "namespace": "n", "title": "B", "content": "x", "tier": "long", "source": "api"}')`,
		`select memory_link('{"source_id": "a", "target_id": "b", "relation": "related_to"}')`,
		`select memory_archive('b')`,
		`select memory_archive('b', 'again')`,
		`select memory_restore('b')`,
		`select namespace_set('{"namespace": "n/m", "standard_id": "a", "parent_namespace": "n"}')`,
		`select namespace_clear('n/m')`,
		`select pending_put('{"id": "p", "action_type": "delete", "memory_id": "b", "namespace": "n", "payload": {}, "requested_by": "ai:a"}')`,
		`select * from pending_decide('p', true, 'ai:b')`,
		`select memory_consolidate('{"id": "c", "namespace": "n", "title": "A", "content": "x", "tier": "long", "source": "api"}', '{a}')`,
		`select outbox_append('n', 'namespace_clear', 'n')`,
		`select outbox_append('n', 'delete', 'z', null, array[(select max(id) from outbox)])`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	wantLog(t, pool, 0, "store n a", "store n b", "link n ab", "archive n b", "restore n b", "namespace_set n/m n/m < restore b",
		"namespace_clear n/m n/m", "pending n p", "decision n p", "delete n b", "consolidate n c < namespace_set n/m", "namespace_clear n n", "delete n z")
	var vector json.RawMessage
	if err := pool.QueryRow(t.Context(), `select embedding from outbox where embedding is not null`).Scan(&vector); err != nil {
		t.Fatal(err)
	}
	if want := `{"memory_id" : "a", "model" : "mini", "dim" : 3, "vector" : [0.5,1e-45,-3]}`; string(vector) != want {
		t.Errorf("got embedding %s, want %s", vector, want)
	}
}
