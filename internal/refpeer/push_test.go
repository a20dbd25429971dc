package refpeer_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quorumbox/internal/refpeer"
)

// TestBodyRefused covers what refuses a whole push with 400.
func TestBodyRefused(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	valid := memoryJSON(t, nil)
	inBody := func(memory string) string { return pushBody(t, []string{memory}) }
	with := func(changes fields) string { return inBody(memoryJSON(t, changes)) }
	bodies := map[string]string{
		"empty":                    "",
		"not JSON":                 "hello",
		"not an object":            "[]",
		"cut off":                  emptyPush[:len(emptyPush)-1],
		"text behind it":           emptyPush + "{}",
		"not UTF-8":                `{"memories":[],"sender_agent_id":"ai:leader","x":"` + "\xff" + `"}`,
		"nested too deeply":        `{"memories":[],"sender_agent_id":"ai:leader","x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
		"no sender":                `{"memories":[]}`,
		"no memories":              `{"sender_agent_id":"ai:leader"}`,
		"memories null":            `{"memories":null,"sender_agent_id":"ai:leader"}`,
		"deletions null":           `{"memories":[],"deletions":null,"sender_agent_id":"ai:leader"}`,
		"deletions of numbers":     `{"memories":[],"deletions":[1],"sender_agent_id":"ai:leader"}`,
		"archives null":            `{"memories":[],"archives":null,"sender_agent_id":"ai:leader"}`,
		"dry_run null":             `{"memories":[],"dry_run":null,"sender_agent_id":"ai:leader"}`,
		"sender twice":             `{"memories":[],"sender_agent_id":"ai:leader","sender_agent_id":"ai:leader"}`,
		"unknown tier":             with(fields{"tier": "Long"}),
		"unknown kind":             with(fields{"memory_kind": "thought"}),
		"unknown confidence":       with(fields{"confidence_source": "guess"}),
		"priority not an integer":  inBody(strings.Replace(valid, `"priority":5`, `"priority":5.0`, 1)),
		"priority too large":       inBody(strings.Replace(valid, `"priority":5`, `"priority":3000000000`, 1)),
		"confidence out of range":  inBody(strings.Replace(valid, `"confidence":0.5`, `"confidence":1e999`, 1)),
		"tags null":                inBody(strings.Replace(valid, `"tags":["a"]`, `"tags":null`, 1)),
		"version null":             inBody(strings.Replace(valid, `"id"`, `"version":null,"id"`, 1)),
		"field twice":              inBody(strings.Replace(valid, `"id"`, `"title":"x","id"`, 1)),
		"citation without uri":     with(fields{"citations": []any{map[string]any{"accessed_at": "x"}}}),
		"span without end":         with(fields{"source_span": map[string]any{"start": 1}}),
		"memory is null":           inBody("null"),
		"over the cap: memories":   pushBody(t, slicesRepeat(valid, 1001)),
		"over the cap: deletions":  pushBody(t, nil, slicesRepeat("x", 1001)...),
		"over the cap: archives":   `{"memories":[],"archives":["x"` + strings.Repeat(`,"x"`, 1000) + `],"sender_agent_id":"ai:leader"}`,
		"lone surrogate in a text": inBody(strings.Replace(valid, `"content":"content"`, `"content":"\ud800"`, 1)),
	}
	for _, field := range []string{
		"id", "tier", "namespace", "title", "content", "tags", "priority", "confidence", "source", "access_count",
		"created_at", "updated_at",
	} {
		bodies["memory without "+field] = with(fields{field: nil})
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			if a := send(t, peer, body); a.status != http.StatusBadRequest {
				t.Errorf("got %d %s, want 400", a.status, a.body)
			}
		})
	}
	if got := rows(t, peer); len(got) != 0 {
		t.Errorf("got %d rows, want none: refused pushes change nothing", len(got))
	}
	if got := entries(t, peer); len(got) != 0 {
		t.Errorf("got %d log entries, want none", len(got))
	}
}

func slicesRepeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

// TestMemorySkipped covers what skips one memory while the push goes on, and
// the last value that is still good.
func TestMemorySkipped(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	nested := func(depth int) map[string]any {
		m := map[string]any{}
		for range depth - 1 {
			m = map[string]any{"k": m}
		}
		return m
	}
	for i, tt := range []struct {
		name  string
		field string
		bad   any
		good  any
	}{
		{"id empty", "id", "", "a"},
		{"id too long", "id", strings.Repeat("a", 129), strings.Repeat("a", 128)},
		{"id with a slash", "id", "a/b", "a_:.@-Z9"},
		{"id with two dots", "id", "a..b", "a.b.c"},
		{"namespace empty", "namespace", "", "a"},
		{"namespace too long", "namespace", strings.Repeat("ä", 513), strings.Repeat("ä", 512)},
		{"namespace too deep", "namespace", "1/2/3/4/5/6/7/8/9", "1/2/3/4/5/6/7/8"},
		{"namespace with a space", "namespace", "a b", "a.b"},
		{"namespace with a backslash", "namespace", `a\b`, "a-b"},
		{"namespace starts with a slash", "namespace", "/a", "a/b"},
		{"namespace ends with a slash", "namespace", "a/", "a/c"},
		{"namespace with an empty segment", "namespace", "a//b", "a/d"},
		{"namespace with a dot segment", "namespace", "a/./b", "a/.b"},
		{"namespace with two dots", "namespace", "a/..", "a/..b"},
		{"title blank", "title", " \t", "x"},
		{"title too long", "title", strings.Repeat("ä", 513), strings.Repeat("ä", 512)},
		{"title with a control character", "title", "a\rb", "a\n\tb"},
		{"content empty", "content", "", " "},
		{"content too long", "content", strings.Repeat("a", 65537), strings.Repeat("a", 65536)},
		{"content with a control character", "content", "a\x00", "a\n"},
		{"content with a C1 control character", "content", "a\u0085", "a\u00a0"},
		{"too many tags", "tags", slicesRepeat("t", 51), slicesRepeat("t", 50)},
		{"tag empty", "tags", []string{""}, []string{}},
		{"tag too long", "tags", []string{strings.Repeat("t", 129)}, []string{strings.Repeat("t", 128)}},
		{"priority too low", "priority", 0, 1},
		{"priority too high", "priority", 11, 10},
		{"confidence negative", "confidence", -0.1, 0},
		{"confidence too high", "confidence", 1.1, 1},
		{"source unknown", "source", "somebody", "chaos"},
		{"access count negative", "access_count", -1, 0},
		{"created_at not a time", "created_at", "yesterday", "2026-01-01T00:00:00Z"},
		{"updated_at without an offset", "updated_at", "2026-01-01T00:00:00", "2026-01-01T00:00:00.123456789+00:00"},
		{"expires_at not a time", "expires_at", "", "2026-01-01T00:00:00+02:00"},
		{"source uri of another scheme", "source_uri", "http://x", "file:x"},
		{"source uri too long", "source_uri", "uri:" + strings.Repeat("a", 4093), "uri:" + strings.Repeat("a", 4092)},
		{"too many citations", "citations", repeat(cite("a"), 65), repeat(cite("a"), 64)},
		{"metadata not an object", "metadata", []any{}, map[string]any{}},
		{"metadata too deep", "metadata", nested(33), nested(32)},
		{
			"metadata too large", "metadata",
			map[string]any{"k": strings.Repeat("a", 65536-7)},
			map[string]any{"k": strings.Repeat("a", 65536-8)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fresh := func(suffix string) fields {
				name := fmt.Sprintf("%d-%s", i, suffix)
				return fields{"id": name, "title": name}
			}
			bad, good := fresh("bad"), fresh("good")
			bad[tt.field], good[tt.field] = tt.bad, tt.good
			bystander := memoryJSON(t, fresh("bystander"))
			a := send(t, peer, pushBody(t, []string{memoryJSON(t, bad), bystander}))
			got := a.json(t)
			if a.status != http.StatusOK || got["skipped"] != 1.0 || got["applied"] != 1.0 {
				t.Errorf("bad value: got %d %s, want 200 with applied 1 and skipped 1", a.status, a.body)
			}
			if got := store(t, peer, good); got["skipped"] != 0.0 || got["applied"] != 1.0 {
				t.Errorf("good value: got %v, want applied 1", got)
			}
		})
	}
}

func repeat(v any, n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{APIKey: "k"})
	const limit = 2 << 20
	filler := func(size int) string {
		body := `{"memories":[],"sender_agent_id":"ai:leader"}`
		return body + strings.Repeat(" ", size-len(body))
	}
	for _, tt := range []struct {
		name     string
		size     int
		declared bool
		status   int
	}{
		{"at the limit", limit, true, http.StatusOK},
		{"above the limit", limit + 1, true, http.StatusRequestEntityTooLarge},
		{"above the limit, length not declared", limit + 1, false, http.StatusRequestEntityTooLarge},
		{"at the limit, length not declared", limit, false, http.StatusOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := pushRequest(t.Context(), filler(tt.size))
			r.Header.Set("X-Api-Key", "k")
			if !tt.declared {
				r.ContentLength = -1
			}
			if a := serve(peer.Handler(), r); a.status != tt.status {
				t.Errorf("got %d %s, want %d", a.status, a.body, tt.status)
			}
		})
	}
}

func TestBodyLengthDiffers(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	for _, more := range []int64{1, -1} {
		r := pushRequest(t.Context(), emptyPush)
		r.ContentLength += more
		if a := serve(peer.Handler(), r); a.status != http.StatusBadRequest || !strings.Contains(string(a.body), "arrive whole") {
			t.Errorf("declared %+d bytes: got %d %s, want 400", more, a.status, a.body)
		}
	}
}

// TestDeletions covers deleting: hard, without a tombstone, after the memories
// of the same push.
func TestDeletions(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	store(t, peer, nil)
	got := send(t, peer, pushBody(t, nil, "m-1", "m-1", "never-was", "bad/id")).json(t)
	want := map[string]any{"deleted": 1.0, "noop": 2.0, "skipped": 1.0, "applied": 0.0}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: got %v, want %v", name, got[name], n)
		}
	}
	if n := len(rows(t, peer)); n != 0 {
		t.Errorf("got %d rows, want none", n)
	}

	// No tombstone: an older store brings the memory back.
	store(t, peer, fields{"updated_at": "2020-01-01T00:00:00+00:00"})
	if n := len(rows(t, peer)); n != 1 {
		t.Errorf("got %d rows after a late store, want 1", n)
	}

	// Whatever the order in the body, memories come first.
	body := `{"deletions":["m-2"],"memories":[` + memoryJSON(t, fields{"id": "m-2", "title": "t2"}) + `],"sender_agent_id":"ai:leader"}`
	if got := send(t, peer, body).json(t); got["applied"] != 1.0 || got["deleted"] != 1.0 {
		t.Errorf("got %v, want applied 1 and deleted 1", got)
	}

	// So a rename in one push loses the memory.
	renamed := memoryJSON(t, fields{"title": "renamed", "updated_at": "2027-01-01T00:00:00+00:00"})
	if got := send(t, peer, pushBody(t, []string{renamed}, "m-1")).json(t); got["skipped"] != 1.0 || got["deleted"] != 1.0 {
		t.Errorf("got %v, want skipped 1 and deleted 1", got)
	}
	if n := len(rows(t, peer)); n != 0 {
		t.Errorf("got %d rows after a rename in one push, want none", n)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	store(t, peer, nil)
	before := entries(t, peer)
	body := strings.Replace(pushBody(t, []string{memoryJSON(t, fields{"id": "new", "title": "new"})}, "m-1"), "{",
		`{"dry_run":true,"archives":["m-1"],`, 1)
	got := send(t, peer, body).json(t)
	if got["noop"] != 3.0 || got["applied"] != 0.0 || got["deleted"] != 0.0 || got["dry_run"] != true {
		t.Errorf("got %v, want dry_run true, noop 3 and nothing else", got)
	}
	if ids := ids(rows(t, peer)); !cmp.Equal(ids, []string{"m-1"}) {
		t.Errorf("got rows %v, want m-1 alone", ids)
	}
	if diff := cmp.Diff(before, entries(t, peer)); diff != "" {
		t.Errorf("log changed (-before +after):\n%s", diff)
	}
}

func ids(rows []map[string]any) []string {
	out := []string{}
	for _, row := range rows {
		out = append(out, row["id"].(string))
	}
	return out
}

// TestEmptyLists covers the whole answer, and the fields that nobody applies.
func TestEmptyLists(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	body := strings.Replace(emptyPush, "{", `{"archives":[],"restores":[],"links":[],"pendings":[],"pending_decisions":[],`+
		`"namespace_meta":[],"namespace_meta_clears":[],"embeddings":[],"signals":null,`+
		`"sender_clock":{"entries":{}},"sender_wall_clock":null,`, 1)
	a := send(t, peer, body)
	got := a.json(t)
	delete(got, "receiver_agent_id")
	want := map[string]any{
		"applied": 0.0, "deleted": 0.0, "archived": 0.0, "restored": 0.0, "links_applied": 0.0, "pendings_applied": 0.0,
		"pending_decisions_applied": 0.0, "namespace_meta_applied": 0.0, "namespace_meta_cleared": 0.0, "noop": 0.0,
		"skipped": 0.0, "quota_refused": 0.0, "dry_run": false, "receiver_clock": map[string]any{"entries": map[string]any{}},
	}
	if diff := cmp.Diff(want, got); diff != "" || a.status != http.StatusOK {
		t.Errorf("got %d (-want +got):\n%s", a.status, diff)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	memory := func(id, ns, author string) string {
		return memoryJSON(t, fields{"id": id, "title": id, "namespace": ns, "metadata": map[string]any{"agent_id": author}})
	}
	peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir, QuotaPerDay: 2})
	if err != nil {
		t.Fatal(err)
	}
	a := send(t, peer, pushBody(t, []string{
		memory("1", "a", "ai:x"), memory("1", "a", "ai:x"), memory("2", "a", "ai:y"), memory("3", "a", "ai:x"), memory("4", "b", "ai:x"),
	}, "1"))
	if a.status != http.StatusTooManyRequests {
		t.Fatalf("got %d %s, want 429", a.status, a.body)
	}
	got := a.json(t)
	resetAt, err := time.Parse(time.RFC3339, got["reset_at"].(string))
	if err != nil || resetAt.Before(time.Now()) || time.Until(resetAt) > 24*time.Hour || !resetAt.Equal(resetAt.Truncate(24*time.Hour)) {
		t.Errorf("reset_at: got %v, want the next UTC midnight", got["reset_at"])
	}
	if a.header.Get("x-quota-reset-at") != got["reset_at"] || a.header.Get("x-quota-limit") == "" || a.header.Get("Retry-After") != "" {
		t.Errorf("headers: got %v, want x-quota-reset-at, x-quota-limit and no Retry-After", a.header)
	}
	delete(got, "reset_at")
	want := map[string]any{
		"error": "QUOTA_EXCEEDED", "limit": "memories_per_day", "current": 2.0, "max": 2.0, "agent_id": "ai:x",
		"applied_before_refusal": 3.0, "quota_refused": 2.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if got, want := ids(rows(t, peer)), []string{"1", "2"}; !cmp.Equal(got, want) {
		t.Errorf("got rows %v, want %v: memories before the refusal stay, deletions are not processed", got, want)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	reopened := openPeer(t, refpeer.Config{DataDir: dir, QuotaPerDay: 2})
	if a := send(t, reopened, pushBody(t, []string{memory("5", "a", "ai:x")})); a.status != http.StatusTooManyRequests {
		t.Errorf("after reopening: got %d, want 429: the day's count stays", a.status)
	}
	if a := send(t, reopened, pushBody(t, []string{memory("6", "b", "ai:x")})); a.status != http.StatusOK {
		t.Errorf("another namespace: got %d %s, want 200", a.status, a.body)
	}
}

// TestLog covers the apply log: one entry an item, numbered without gaps, with
// the headers of its push, also after reopening.
func TestLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r := pushRequest(t.Context(), pushBody(t, []string{
		memoryJSON(t, fields{"id": "a", "title": "a", "updated_at": timestamp(1)}),
		memoryJSON(t, fields{"id": "b", "title": "b", "updated_at": timestamp(2), "priority": 99}),
	}, "a", "gone"))
	r.Header.Set("Idempotency-Key", "key")
	r.Header.Set("X-Memory-Nonce", "nonce")
	serve(peer.Handler(), r)
	send(t, peer, emptyPush) // no items, no entries
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	reopened := openPeer(t, refpeer.Config{DataDir: dir})
	send(t, reopened, pushBody(t, nil, "gone"))

	first := refpeer.LogEntry{Push: 1, IdempotencyKey: "key", PeerID: sender, Nonce: "nonce"}
	entry := func(e refpeer.LogEntry, seq int64, op refpeer.Op, id, ns, updatedAt string, result refpeer.Result) refpeer.LogEntry {
		e.Seq, e.Op, e.ID, e.Namespace, e.UpdatedAt, e.Result = seq, op, id, ns, updatedAt, result
		return e
	}
	refused := first
	refused.Reason = "invalid"
	want := []refpeer.LogEntry{
		entry(first, 1, "store", "a", "ns", timestamp(1), "inserted"),
		entry(refused, 2, "store", "b", "ns", timestamp(2), "skipped"),
		entry(first, 3, "delete", "a", "", "", "deleted"),
		entry(first, 4, "delete", "gone", "", "", "noop"),
		entry(refpeer.LogEntry{Push: 2, PeerID: sender}, 5, "delete", "gone", "", "", "noop"),
	}
	got := entries(t, reopened)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(refpeer.LogEntry{}, "At")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	for _, e := range got {
		if age := time.Since(e.At); age < 0 || age > time.Minute {
			t.Errorf("entry %d: got the time %v, want now", e.Seq, e.At)
		}
	}
	a := get(t, reopened, "/_ref/log?after=2")
	var last refpeer.LogEntry
	lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &last); err != nil || len(lines) != 3 || last.Seq != 3 {
		t.Errorf("after=2: got %d lines from number %d, want 3 from number 3", len(lines), last.Seq)
	}
	if a := get(t, reopened, "/_ref/log?after=x"); a.status != http.StatusBadRequest {
		t.Errorf("after=x: got %d, want 400", a.status)
	}
}
