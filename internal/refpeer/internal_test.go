package refpeer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// FuzzScanner compares the scanner with encoding/json: both must agree on what
// is JSON, apart from the depth limit and texts that only one of them repairs.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `""`, `0`, `-0.5e+3`, `01`, `1.`, `.5`, `1e`, `-`, `true`, `nul`, ` { "a" : [ 1 , "b" , { } ] } `,
		`"\u00e4\ud83d\ude00\n\/"`, `"\ud800"`, `"\x"`, `"` + "\n" + `"`, `[1,]`, `{"a":1,}`, `{"a"}`, `[1 2]`, `"`, `{"a":1}x`, "[[[[", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		s := scanner{text: input}
		var texts []string
		value := collect(&s, &texts, 0)
		s.end()
		if strings.ToValidUTF8(input, "") != input || strings.Count(input, "[")+strings.Count(input, "{") > maxDepth {
			return // refused before, or by the depth limit
		}
		var want any
		err := json.Unmarshal([]byte(input), &want)
		if err != nil && s.err == nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
			t.Fatalf("%q: got no error, encoding/json says %v", input, err)
		}
		if err == nil && s.err != nil && !strings.Contains(s.err.Error(), "surrogate") {
			t.Fatalf("%q: got %v, encoding/json has no error", input, s.err)
		}
		if s.err == nil && err == nil && !reflect.DeepEqual(value, want) {
			t.Fatalf("%q: got %v, want %v", input, value, want)
		}
		if s.err == nil {
			if raw := string(appendRaw(nil, strings.TrimSpace(input), "")); raw != "" && !json.Valid([]byte(raw)) {
				t.Fatalf("%q: without blanks it is %q, which is no JSON", input, raw)
			}
			for _, text := range texts {
				var back string
				if err := json.Unmarshal(appendString(nil, text), &back); err != nil || back != text {
					t.Fatalf("%q written as JSON reads back as %q (%v)", text, back, err)
				}
			}
		}
	})
}

// collect reads the next value as encoding/json would, and its strings.
func collect(s *scanner, texts *[]string, depth int) any {
	if depth > maxDepth {
		s.fail("nested too deeply")
	}
	if s.err != nil {
		return nil
	}
	switch s.peek() {
	case '{':
		out := map[string]any{}
		s.object(func(key string) { out[key] = collect(s, texts, depth+1) })
		return out
	case '[':
		out := []any{}
		s.array(func() { out = append(out, collect(s, texts, depth+1)) })
		return out
	case '"':
		text := s.str()
		*texts = append(*texts, text)
		return text
	case 't', 'f':
		return s.boolean("value")
	case 'n':
		s.null()
		return nil
	}
	f, _ := s.float("value")
	return f
}

// FuzzMemory wants a memory that is accepted to read back the same after it
// was written out.
func FuzzMemory(f *testing.F) {
	f.Add(`{"id":"a","tier":"long","namespace":"n","title":"t","content":"c","tags":["x"],"priority":1,"confidence":1.0,` +
		`"source":"api","access_count":0,"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",` +
		`"metadata":{"agent_id":"x","k":[{}]},"citations":[{"uri":"u","accessed_at":"x","span":null}],"source_span":{"start":1,"end":2}}`)
	f.Fuzz(func(t *testing.T, input string) {
		m, err := parseMemory(input)
		if err != nil || strings.ToValidUTF8(input, "") != input {
			return
		}
		_ = m.valid()
		written := string(m.appendJSON(nil))
		back, err := parseMemory(written)
		if err != nil {
			t.Fatalf("%s\nwritten as %s: %v", input, written, err)
		}
		if again := string(back.appendJSON(nil)); again != written {
			t.Fatalf("got %s, want %s", again, written)
		}
		if !json.Valid([]byte(written)) {
			t.Fatalf("not JSON: %s", written)
		}
	})
}

func TestLogItems(t *testing.T) {
	t.Parallel()
	want := []logItem{
		{op: OpStore, result: ResultInserted, id: strings.Repeat("i", 200), namespace: "n", updatedAt: "u"},
		{op: OpDelete, result: ResultNoop},
		{op: OpLink, result: ResultSkipped, id: "s", target: "t", relation: "r", reason: "why"},
	}
	var b []byte
	for _, item := range want {
		b = appendLogItem(b, item)
	}
	got, err := readLogItems(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	for cut := range len(b) {
		items, err := readLogItems(b[:cut])
		if err == nil && len(items) != 0 && !reflect.DeepEqual(items, want[:min(len(items), 2)]) {
			t.Errorf("cut at %d: got %v, want an error or the first items", cut, items)
		}
		if err != nil && !errors.Is(err, errLogDamaged) {
			t.Errorf("cut at %d: got %v, want %v", cut, err, errLogDamaged)
		}
	}
}

// TestNonceWindow covers what is forgotten: the oldest nonce of a peer, and the
// quietest peer. The rows to delete must be those.
func TestNonceWindow(t *testing.T) {
	t.Parallel()
	w := newNonceWindow()
	w.limit, w.maxPeer = 3, 2
	use := func(peer, nonce string) (consumed, bool) { return w.consume(peer, nonce) }
	rows := map[int64]string{}
	consume := func(peer, nonce string, fresh bool) {
		t.Helper()
		got, ok := use(peer, nonce)
		if ok != fresh {
			t.Fatalf("%s %s: got fresh %t, want %t", peer, nonce, ok, fresh)
		}
		if ok {
			rows[got.row.seq] = peer + nonce
			for _, seq := range got.drop {
				delete(rows, seq)
			}
		}
	}
	for i := range 3 {
		consume("a", fmt.Sprint(i), true)
	}
	consume("a", "0", false)
	consume("a", "3", true) // forgets 0
	consume("a", "1", false)
	consume("a", "0", true) // forgets 1
	consume("b", "0", true)
	consume("a", "9", true)
	consume("c", "0", true) // forgets b
	consume("a", "9", false)
	consume("b", "0", true) // forgets a
	consume("a", "9", true) // forgets c
	if len(rows) != 2 {
		t.Errorf("got rows %v, want those of a and b", rows)
	}
}

// TestNonceWindowReload wants a window that has forgotten nonces to come back
// from the file, and to go on from there.
func TestNonceWindowReload(t *testing.T) {
	t.Parallel()
	s, err := openStore(t.Context(), t.TempDir(), Default)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	for life := range 3 {
		w := newNonceWindow()
		w.limit = 2
		if err := w.load(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if _, fresh := w.consume("a", fmt.Sprint(life*5-1)); life > 0 && fresh {
			t.Errorf("life %d: the last nonce is forgotten", life)
		}
		for i := range 5 {
			used, fresh := w.consume("a", fmt.Sprint(life*5+i))
			if !fresh {
				t.Errorf("life %d: nonce %d counts as used", life, i)
			}
			if err := s.saveNonceAlone(used); err != nil {
				t.Fatal(err)
			}
		}
	}
	var rows int
	if err := s.readers.QueryRowContext(t.Context(), `select count(*) from nonces`).Scan(&rows); err != nil || rows > 3 {
		t.Errorf("got %d rows (%v), want those of the window", rows, err)
	}
}

func TestNonceFingerprint(t *testing.T) {
	t.Parallel()
	if nonceFingerprint("ab", "c") == nonceFingerprint("a", "bc") {
		t.Error("two pairs have one fingerprint")
	}
}

// TestOldQuotaIsForgotten wants the counts of past days gone, and today's kept.
func TestOldQuotaIsForgotten(t *testing.T) {
	t.Parallel()
	p, err := Open(t.Context(), Config{DataDir: t.TempDir(), QuotaPerDay: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	charge := func(author string) {
		t.Helper()
		charging := func(ctx context.Context, s *store, _ *push, _ *outcome) error {
			_, err := s.charge(ctx, author, "ns", usage{memories: 1}, limits{memories: 5})
			return err
		}
		if _, err := p.store.apply(&push{msg: &message{}, steps: []step{charging}}); err != nil {
			t.Fatal(err)
		}
	}
	charge("ai:x")
	old := func(ctx context.Context, s *store, _ *push, _ *outcome) error {
		_, err := s.stmts.setQuota.ExecContext(ctx, "2020-01-01", "ai:x", "ns", 3, 0, 0)
		return err
	}
	if _, err := p.store.apply(&push{msg: &message{}, steps: []step{old}}); err != nil {
		t.Fatal(err)
	}
	charge("ai:y")
	var days, rows int
	row := p.store.readers.QueryRowContext(t.Context(), `select count(distinct day), count(*) from quota`)
	if err := row.Scan(&days, &rows); err != nil || days != 1 || rows != 2 {
		t.Errorf("got %d rows of %d days (%v), want 2 of one", rows, days, err)
	}
}
