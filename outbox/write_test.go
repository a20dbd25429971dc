package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

func memory(id string, change ...func(*outbox.Memory)) outbox.Memory {
	m := outbox.Memory{ID: id, Namespace: "team/notes", Title: "title of " + id, Content: "content of " + id}
	for _, c := range change {
		c(&m)
	}
	return m
}

// inTx runs do in a transaction that is committed.
func inTx(t *testing.T, pool *pgxpool.Pool, do func(tx pgx.Tx)) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { do(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

func store(t *testing.T, pool *pgxpool.Pool, m outbox.Memory) outbox.Stored {
	t.Helper()
	var s outbox.Stored
	inTx(t, pool, func(tx pgx.Tx) {
		var err error
		if s, err = outbox.Store(t.Context(), tx, m); err != nil {
			t.Fatal(err)
		}
	})
	return s
}

// logged is an entry as the tests look at it.
type logged struct {
	Namespace, Kind, Key string
	Payload              map[string]any
	AfterKind            string // the kind of the entry that must come first
}

func entries(t *testing.T, pool *pgxpool.Pool) []logged {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select o.namespace, o.kind, o.key, o.payload, coalesce(a.kind, '')
		from outbox o
		join undispatched u on u.entry = o.id and u.lane = o.lane
		left join outbox a on a.id = u.after_entries[1] and a.lane = u.after_lanes[1]
		order by o.id`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[logged])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestStoreWritesMemoryAndEntryTogether(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	m := memory("m-1", func(m *outbox.Memory) {
		m.Tier = "long"
		m.Content = "quotes \" and <tags> & ünïcode\nlines"
		m.Tags = []string{"a", "b,c"}
		m.Confidence = new(0.25)
		m.Metadata = json.RawMessage(`{"agent_id": "ai:x", "scope": "collective", "n": {"deep": [1, 2.5, null]}}`)
		m.CreatedAt = time.Date(2025, 1, 2, 3, 4, 5, 678901234, time.FixedZone("", 3600))
		m.UpdatedAt = time.Date(2025, 1, 2, 3, 4, 6, 0, time.UTC)
		m.ExpiresAt = time.Date(2035, 1, 2, 3, 4, 6, 5000, time.UTC)
		m.PersonaVersion = new(int32(7))
		m.SourceURI = "uri:thing"
		m.SourceSpan = json.RawMessage(`{"start": 1, "end": 2}`)
		m.Citations = []outbox.Citation{{URI: "doc:1", AccessedAt: "2025-01-01T00:00:00+00:00"}}
	})
	s := store(t, pool, m)
	if s.Action != outbox.Inserted || s.Entry == 0 {
		t.Errorf("got %+v, want an insert with an entry", s)
	}
	got := entries(t, pool)
	want := []logged{{Namespace: "team/notes", Kind: "store", Key: "m-1", Payload: map[string]any{
		"id": "m-1", "namespace": "team/notes", "title": "title of m-1", "content": m.Content, "tier": "long",
		"tags": []any{"a", "b,c"}, "confidence": 0.25, "priority": 5.0, "source": "api", "access_count": 0.0,
		"metadata":   map[string]any{"agent_id": "ai:x", "scope": "collective", "n": map[string]any{"deep": []any{1.0, 2.5, nil}}},
		"created_at": "2025-01-02T02:04:05.678901+00:00", "updated_at": "2025-01-02T03:04:06.000000+00:00",
		"expires_at": "2035-01-02T03:04:06.000005+00:00", "persona_version": 7.0, "source_uri": "uri:thing",
		"source_span": map[string]any{"start": 1.0, "end": 2.0}, "reflection_depth": 0.0, "memory_kind": "observation",
		"citations":         []any{map[string]any{"uri": "doc:1", "accessed_at": "2025-01-01T00:00:00+00:00"}},
		"confidence_source": "caller_provided", "version": 1.0,
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	var content string
	var tags []string
	if err := pool.QueryRow(t.Context(), `select content, tags from memories where id = 'm-1'`).Scan(&content, &tags); err != nil {
		t.Fatal(err)
	}
	if content != m.Content || !cmp.Equal(tags, m.Tags) {
		t.Errorf("got row %q %q", content, tags)
	}
}

func TestStoreRolledBackLeavesNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Store(t.Context(), tx, memory("m-1")); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), `select (select count(*) from memories) + (select count(*) from outbox) + (select count(*) from undispatched)`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("got %d rows after the rollback, want none", n)
	}
}

// Peers keep the row whose updated_at is larger as text, so an update must always be newer than the row (wire.md 6.1).
func TestUpdateIsAlwaysNewer(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		content   string
		updatedAt time.Time
		action    outbox.Action
		want      string
	}{
		{"one", at, outbox.Inserted, "2025-01-01T00:00:00.000000+00:00"},
		{"two", at.Add(time.Second), outbox.Updated, "2025-01-01T00:00:01.000000+00:00"},
		{"three, given an older time", at, outbox.Updated, "2025-01-01T00:00:01.000001+00:00"},
		{"four, given the same time", at.Add(time.Second + time.Microsecond), outbox.Updated, "2025-01-01T00:00:01.000002+00:00"},
		{"four, given the same time", at.Add(time.Second + 2*time.Microsecond), outbox.Unchanged, "2025-01-01T00:00:01.000002+00:00"},
		{"four, given the same time", at, outbox.Unchanged, "2025-01-01T00:00:01.000002+00:00"},
	} {
		s := store(t, pool, memory("m-1", func(m *outbox.Memory) { m.Content, m.CreatedAt, m.UpdatedAt = c.content, at, c.updatedAt }))
		if s.Action != c.action {
			t.Errorf("store %d: got %s, want %s", i, s.Action, c.action)
		}
		all := entries(t, pool)
		if len(all) != i+1 {
			t.Fatalf("store %d: got %d entries, want one each", i, len(all))
		}
		if got := all[i].Payload["updated_at"]; got != c.want {
			t.Errorf("store %d: got updated_at %v, want %s", i, got, c.want)
		}
		if got := all[i].Payload["created_at"]; got != "2025-01-01T00:00:00.000000+00:00" {
			t.Errorf("store %d: got created_at %v, want the first", i, got)
		}
	}
}

// A rename or a move is a delete and a store (wire.md 6.3 rule 3); across lanes the store must wait for the delete.
func TestRenameAndMoveBecomeDeleteAndStore(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m-1"))
	if s := store(t, pool, memory("m-1", func(m *outbox.Memory) { m.Title = "new title" })); s.Action != outbox.Moved {
		t.Errorf("rename: got %s, want %s", s.Action, outbox.Moved)
	}
	if s := store(t, pool, memory("m-1", func(m *outbox.Memory) { m.Title, m.Namespace = "new title", "other" })); s.Action != outbox.Moved {
		t.Errorf("move: got %s, want %s", s.Action, outbox.Moved)
	}
	inTx(t, pool, func(tx pgx.Tx) {
		if _, err := outbox.Delete(t.Context(), tx, "m-1"); err != nil {
			t.Fatal(err)
		}
	})
	if s := store(t, pool, memory("m-1")); s.Action != outbox.Inserted {
		t.Errorf("store after delete: got %s, want %s", s.Action, outbox.Inserted)
	}
	var got []string
	for _, e := range entries(t, pool) {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %v %s", e.Namespace, e.Kind, e.Payload["title"], e.AfterKind)))
	}
	want := []string{
		"team/notes store title of m-1",
		"team/notes delete title of m-1",
		"team/notes store new title", // same lane: order is kept anyway
		"team/notes delete new title",
		"other store new title delete",
		"other delete new title",
		"team/notes store title of m-1 delete", // the id was deleted in another lane
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestStoreRefusesWhatReceiversRefuse(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	deep := json.RawMessage(strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33))
	for name, c := range map[string]struct {
		change func(*outbox.Memory)
		field  string
	}{
		"no id":                {func(m *outbox.Memory) { m.ID = "" }, "id"},
		"id too long":          {func(m *outbox.Memory) { m.ID = strings.Repeat("a", 129) }, "id"},
		"id with dots":         {func(m *outbox.Memory) { m.ID = "a..b" }, "id"},
		"id with slash":        {func(m *outbox.Memory) { m.ID = "a/b" }, "id"},
		"no namespace":         {func(m *outbox.Memory) { m.Namespace = "" }, "namespace"},
		"namespace blank":      {func(m *outbox.Memory) { m.Namespace = "a b" }, "namespace"},
		"namespace slash":      {func(m *outbox.Memory) { m.Namespace = "a/" }, "namespace"},
		"namespace dots":       {func(m *outbox.Memory) { m.Namespace = "a/../b" }, "namespace"},
		"namespace deep":       {func(m *outbox.Memory) { m.Namespace = "1/2/3/4/5/6/7/8/9" }, "namespace"},
		"namespace long":       {func(m *outbox.Memory) { m.Namespace = strings.Repeat("n", 513) }, "namespace"},
		"title blank":          {func(m *outbox.Memory) { m.Title = " \n" }, "title"},
		"title long":           {func(m *outbox.Memory) { m.Title = strings.Repeat("ü", 513) }, "title"},
		"title control":        {func(m *outbox.Memory) { m.Title = "a\x07" }, "title"},
		"title not UTF-8":      {func(m *outbox.Memory) { m.Title = "a\xff" }, "title"},
		"content empty":        {func(m *outbox.Memory) { m.Content = "" }, "content"},
		"content NUL":          {func(m *outbox.Memory) { m.Content = "a\x00b" }, "content"},
		"content long":         {func(m *outbox.Memory) { m.Content = strings.Repeat("c", 65537) }, "content"},
		"tier":                 {func(m *outbox.Memory) { m.Tier = "forever" }, "tier"},
		"source":               {func(m *outbox.Memory) { m.Source = "nobody" }, "source"},
		"kind":                 {func(m *outbox.Memory) { m.MemoryKind = "rumour" }, "memory_kind"},
		"confidence source":    {func(m *outbox.Memory) { m.ConfidenceSource = "guess" }, "confidence_source"},
		"priority 11":          {func(m *outbox.Memory) { m.Priority = 11 }, "priority"},
		"confidence above 1":   {func(m *outbox.Memory) { m.Confidence = new(1.5) }, "confidence"},
		"access count":         {func(m *outbox.Memory) { m.AccessCount = -1 }, "access_count"},
		"reflection depth":     {func(m *outbox.Memory) { m.ReflectionDepth = -1 }, "reflection_depth"},
		"51 tags":              {func(m *outbox.Memory) { m.Tags = strings.Split(strings.Repeat("t,", 51), ",")[:51] }, "tags"},
		"empty tag":            {func(m *outbox.Memory) { m.Tags = []string{""} }, "tags"},
		"long tag":             {func(m *outbox.Memory) { m.Tags = []string{strings.Repeat("t", 129)} }, "tags"},
		"metadata array":       {func(m *outbox.Memory) { m.Metadata = json.RawMessage(`[]`) }, "metadata"},
		"metadata broken":      {func(m *outbox.Memory) { m.Metadata = json.RawMessage(`{"a":`) }, "metadata"},
		"metadata NUL":         {func(m *outbox.Memory) { m.Metadata = json.RawMessage(`{"a":"\u0000"}`) }, "metadata"},
		"metadata deep":        {func(m *outbox.Memory) { m.Metadata = deep }, "metadata"},
		"metadata large":       {func(m *outbox.Memory) { m.Metadata = json.RawMessage(`{"a":"` + strings.Repeat("x", 65536) + `"}`) }, "metadata"},
		"65 citations":         {func(m *outbox.Memory) { m.Citations = make([]outbox.Citation, 65) }, "citations"},
		"citation without uri": {func(m *outbox.Memory) { m.Citations = []outbox.Citation{{AccessedAt: "x"}} }, "citations"},
		"source uri":           {func(m *outbox.Memory) { m.SourceURI = "http://x" }, "source_uri"},
		"source span":          {func(m *outbox.Memory) { m.SourceSpan = json.RawMessage(`{"start":1}`) }, "source_span"},
		"signals":              {func(m *outbox.Memory) { m.ConfidenceSignals = json.RawMessage(`3`) }, "confidence_signals"},
		"year 10000":           {func(m *outbox.Memory) { m.UpdatedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "updated_at"},
	} {
		t.Run(name, func(t *testing.T) {
			m := memory("m-1", c.change)
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				_, err := outbox.Store(t.Context(), tx, m)
				return err
			})
			invalid, ok := errors.AsType[*outbox.InvalidError](err)
			if !ok || invalid.Field != c.field || invalid.Rule == "" {
				t.Errorf("got %v, want a refusal of %s", err, c.field)
			}
			// The same in SQL, for writers in other languages. Go's own rules that JSON cannot break are left out.
			if name == "title not UTF-8" || name == "year 10000" || name == "metadata broken" || name == "content NUL" || name == "metadata NUL" {
				return
			}
			wire, err := json.Marshal(withSQLDefaults(m))
			if err != nil {
				t.Fatal(err)
			}
			_, err = pool.Exec(t.Context(), `select memory_store($1::jsonb)`, string(wire))
			if err == nil || !strings.Contains(err.Error(), c.field) {
				t.Errorf("memory_store: got %v, want a refusal that names %s", err, c.field)
			}
		})
	}
	if n := len(entries(t, pool)); n != 0 {
		t.Errorf("got %d entries of refused rows, want none", n)
	}
}

func withSQLDefaults(m outbox.Memory) map[string]any {
	wire := map[string]any{"tier": "long", "source": "api"}
	raw, _ := json.Marshal(m)
	var given map[string]any
	_ = json.Unmarshal(raw, &given)
	for k, v := range given {
		if v != nil && v != "" && !(v == 0.0 && k != "confidence") && v != "0001-01-01T00:00:00Z" {
			wire[k] = v
		}
	}
	return wire
}

func TestStoreRefusesTakenTitleAndChangedAuthor(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	author := func(id string) func(*outbox.Memory) {
		return func(m *outbox.Memory) { m.Metadata = json.RawMessage(`{"agent_id":"` + id + `"}`) }
	}
	store(t, pool, memory("m-1", author("ai:a")))
	tryStore := func(m outbox.Memory) error {
		return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.Store(t.Context(), tx, m)
			return err
		})
	}
	if err := tryStore(memory("m-2", func(m *outbox.Memory) { m.Title = "title of m-1" })); !errors.Is(err, outbox.ErrTitleTaken) {
		t.Errorf("title of another memory: got %v, want %v", err, outbox.ErrTitleTaken)
	}
	err := tryStore(memory("m-1", author("ai:b")))
	if invalid, ok := errors.AsType[*outbox.InvalidError](err); !ok || invalid.Field != "metadata.agent_id" {
		t.Errorf("another author: got %v, want a refusal of metadata.agent_id", err)
	}
	if n := len(entries(t, pool)); n != 1 {
		t.Errorf("got %d entries, want the first only", n)
	}
}

func TestStoreMany(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	many := make([]outbox.Memory, 1234)
	for i := range many {
		many[i] = memory(fmt.Sprintf("m-%d", i), func(m *outbox.Memory) { m.Namespace = fmt.Sprintf("ns/%d", i%40) })
	}
	inTx(t, pool, func(tx pgx.Tx) {
		stored, err := outbox.StoreMany(t.Context(), tx, many)
		if err != nil {
			t.Fatal(err)
		}
		if len(stored) != len(many) {
			t.Fatalf("got %d results, want %d", len(stored), len(many))
		}
		for i := 1; i < len(stored); i++ {
			if stored[i].Entry <= stored[i-1].Entry || stored[i].Action != outbox.Inserted {
				t.Fatalf("result %d: got %+v after %+v", i, stored[i], stored[i-1])
			}
		}
	})
	if got := entries(t, pool); len(got) != len(many) || got[1233].Key != "m-1233" {
		t.Errorf("got %d entries, want %d in order", len(got), len(many))
	}
}

func TestStoreManyNamesTheBadRow(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("taken"))
	for name, c := range map[string]struct {
		bad  outbox.Memory
		want error
	}{
		"by the protocol": {memory("bad", func(m *outbox.Memory) { m.Content = "" }), nil},
		"by the database": {memory("bad", func(m *outbox.Memory) { m.Title = "title of taken" }), outbox.ErrTitleTaken},
	} {
		rows := []outbox.Memory{memory("m-1"), memory("m-2"), c.bad, memory("m-3")}
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := outbox.StoreMany(t.Context(), tx, rows)
			return err
		})
		rowErr, ok := errors.AsType[*outbox.RowError](err)
		if !ok || rowErr.Row != 2 || rowErr.ID != "bad" || (c.want != nil && !errors.Is(err, c.want)) {
			t.Errorf("%s: got %v, want row 2 refused", name, err)
		}
	}
	if n := len(entries(t, pool)); n != 1 {
		t.Errorf("got %d entries, want only that of the first memory", n)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m-1"))
	var first, again outbox.EntryID
	inTx(t, pool, func(tx pgx.Tx) {
		var err error
		if first, err = outbox.Delete(t.Context(), tx, "m-1"); err != nil {
			t.Fatal(err)
		}
	})
	inTx(t, pool, func(tx pgx.Tx) {
		var err error
		if again, err = outbox.Delete(t.Context(), tx, "m-1"); err != nil {
			t.Fatal(err)
		}
		if _, err := outbox.Delete(t.Context(), tx, "never"); !errors.Is(err, outbox.ErrNotFound) {
			t.Errorf("unknown memory: got %v, want %v", err, outbox.ErrNotFound)
		}
		if _, err := outbox.Delete(t.Context(), tx, "a/b"); err == nil {
			t.Error("bad id: got no error")
		}
	})
	if first == 0 || again != first {
		t.Errorf("repeated delete: got entry %d, want %d again", again, first)
	}
	got := entries(t, pool)
	if len(got) != 2 || got[1].Kind != "delete" || got[1].Key != "m-1" {
		t.Errorf("got entries %+v, want a store and a delete", got)
	}
}

// Two transactions that write one memory get ids in commit order, because the second waits for the row's lock before it takes an id.
func TestEntriesOfOneMemoryAreInCommitOrder(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m-1"))
	first, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Delete(t.Context(), first, "m-1"); err != nil {
		t.Fatal(err)
	}
	done := make(chan outbox.Stored)
	go func() {
		var s outbox.Stored
		_ = pgx.BeginFunc(context.WithoutCancel(t.Context()), pool, func(tx pgx.Tx) (err error) {
			s, err = outbox.Store(context.WithoutCancel(t.Context()), tx, memory("m-1", func(m *outbox.Memory) { m.Content = "reborn" }))
			return err
		})
		done <- s
	}()
	for waiting := 0; waiting == 0; {
		if err := pool.QueryRow(t.Context(), `select count(*) from pg_locks where not granted`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := <-done; s.Action != outbox.Inserted {
		t.Errorf("got %+v, want an insert after the delete", s)
	}
	var kinds []string
	for _, e := range entries(t, pool) {
		kinds = append(kinds, e.Kind)
	}
	if diff := cmp.Diff([]string{"store", "delete", "store"}, kinds); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
