package importer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/importer"
	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// memory is a legal line.
func memory(id string) string { return titled(id, "title of "+id) }

func titled(id, title string) string {
	return fmt.Sprintf(`{"id":%q,"namespace":"tests/import","title":%q,"content":"content","tier":"long"}`, id, title)
}

// ignoreTimes compares summaries without what depends on the clock.
func ignoreTimes() cmp.Option {
	return cmp.Options{
		cmpopts.IgnoreFields(importer.Summary{}, "Took"),
		cmpopts.IgnoreFields(importer.Verdicts{}, "Took"),
		cmpopts.EquateEmpty(),
	}
}

// badLines collects "number id: error".
type badLines []string

func (b *badLines) add(bad importer.Bad) {
	*b = append(*b, fmt.Sprintf("%d %s: %v", bad.Line, bad.ID, bad.Err))
}

func stored(t *testing.T, pool *pgxpool.Pool) (memories, entries int) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `select (select count(*) from memories), (select count(*) from outbox)`).Scan(&memories, &entries)
	if err != nil {
		t.Fatal(err)
	}
	return memories, entries
}

func TestRunStoresLines(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	text := "\ufeff" + memory("a") + "\r\n\n  " + memory("b") + "  \n" + memory("c") // no line feed at the end
	got, err := importer.Run(t.Context(), pool, strings.NewReader(text), importer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(importer.Summary{Lines: 3, Inserted: 3}, got, ignoreTimes()); diff != "" {
		t.Errorf("first import (-want +got):\n%s", diff)
	}

	again := strings.Join([]string{memory("a"), strings.Replace(memory("b"), `"content"`, `"priority":7,"content"`, 1), titled("c", "renamed"), memory("d")}, "\n")
	got, err = importer.Run(t.Context(), pool, strings.NewReader(again), importer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(importer.Summary{Lines: 4, Inserted: 1, Updated: 1, Moved: 1, Unchanged: 1}, got, ignoreTimes()); diff != "" {
		t.Errorf("second import (-want +got):\n%s", diff)
	}
	if got.Entries() != 4 || !got.OK() || got.Rate() <= 0 {
		t.Errorf("got %d entries, ok %v, rate %v", got.Entries(), got.OK(), got.Rate())
	}
	memories, entries := stored(t, pool)
	if memories != 4 || entries != 3+4+1 {
		t.Errorf("got %d memories and %d entries, want 4 and 8 (one move makes two)", memories, entries)
	}
}

func TestRunReportsBadLines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		line string
		want string // "id: error"
	}{
		{"no JSON", `hello`, ": the line is no JSON object"},
		{"an array", `[1]`, ": the line is no JSON object"},
		{"null", `null`, ": the line is no JSON object"},
		{"broken", `{"id":"x",}`, ": the line is not valid JSON: invalid character '}' looking for beginning of object key string"},
		{"cut", `{"id":"x"`, ": the JSON object ends too early"},
		{"two objects", memory("x") + memory("y"), "x: something follows the JSON object: one line holds one memory"},
		{"unknown field", `{"id":"x","colour":"red"}`, `x: unknown field "colour"`},
		{"no id", `{"namespace":"n","title":"t","content":"c"}`, ": id: must be 1 to 128 of the characters A-Z a-z 0-9 _ : . @ -"},
		{"no namespace", `{"id":"x","title":"t","content":"c"}`, "x: namespace: must not be empty"},
		{"no title", `{"id":"x","namespace":"n","content":"c"}`, "x: title: must not be empty"},
		{"no content", `{"id":"x","namespace":"n","title":"t"}`, "x: content: must not be empty"},
		{"a number for text", `{"id":"x","title":7}`, "x: title: must not be a JSON number"},
		{"no time", `{"id":"x","created_at":"yesterday"}`, `x: a time is not RFC 3339, such as 2006-01-02T15:04:05Z: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"no UTF-8", "{\"id\":\"x\",\"title\":\"\xff\"}", ": the line is not UTF-8"},
		{"too long", `{"id":"x","content":"` + strings.Repeat("c", importer.MaxLineBytes) + `"}`, ": the line has more than 1048576 bytes"},
		{
			"NUL in metadata", strings.Replace(memory("x"), `"content"`, `"metadata":{"k":"\u0000"},"content"`, 1),
			"x: metadata: must not contain the character U+0000",
		},
		{"title of another memory", titled("x", "title of a"), "x: another memory of this namespace has this title"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			var bad badLines
			text := memory("a") + "\n\n" + tt.line + "\n" + memory("b") + "\n"
			got, err := importer.Run(t.Context(), pool, strings.NewReader(text), importer.Options{OnBad: bad.add})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(badLines{"3 " + tt.want}, bad); diff != "" {
				t.Errorf("bad lines (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(importer.Summary{Lines: 3, Inserted: 2, Bad: 1}, got, ignoreTimes()); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
			if got.OK() {
				t.Error("an import with a bad line is OK")
			}
			if memories, entries := stored(t, pool); memories != 2 || entries != 2 {
				t.Errorf("got %d memories and %d entries, want 2 and 2", memories, entries)
			}
		})
	}
}

func TestRunTakesTheLongestLine(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	pad := func(n int) string { // blanks inside the object count
		m := memory("a")
		return m[:len(m)-1] + strings.Repeat(" ", n-len(m)) + "}"
	}
	var bad badLines
	text := pad(importer.MaxLineBytes) + "\r\n" + pad(importer.MaxLineBytes+1) + "\n" + pad(importer.MaxLineBytes+5000) + "\n" + memory("b")
	got, err := importer.Run(t.Context(), pool, strings.NewReader(text), importer.Options{OnBad: bad.add})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(importer.Summary{Lines: 4, Inserted: 2, Bad: 2}, got, ignoreTimes()); diff != "" {
		t.Errorf("summary (-want +got):\n%s\n%v", diff, bad)
	}
}

// The same memory twice in one chunk, and rows that are refused at the edges of parts.
func TestRunKeepsOrderAroundRefusedRows(t *testing.T) {
	t.Parallel()
	for _, chunk := range []int{1, 2, 3, 7, 500} {
		t.Run(fmt.Sprintf("chunks of %d", chunk), func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			var lines, want []string
			lines = append(lines, memory("first"))
			for i := range 60 {
				switch i % 4 {
				case 0, 1:
					lines = append(lines, titled(fmt.Sprintf("bad%d", i), "title of first"))
					want = append(want, fmt.Sprintf("%d bad%d: %v", len(lines), i, outbox.ErrTitleTaken))
				case 2:
					lines = append(lines, memory(fmt.Sprintf("good%d", i)))
				default:
					lines = append(lines, strings.Replace(memory(fmt.Sprintf("good%d", i-1)), `"content":"content"`, `"content":"newer"`, 1))
				}
			}
			var bad badLines
			got, err := importer.Run(t.Context(), pool, strings.NewReader(strings.Join(lines, "\n")), importer.Options{Chunk: chunk, OnBad: bad.add})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(badLines(want), bad); diff != "" {
				t.Errorf("bad lines (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(importer.Summary{Lines: 61, Inserted: 16, Updated: 15, Bad: 30}, got, ignoreTimes()); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
			var newer int
			if err := pool.QueryRow(t.Context(), `select count(*) from memories where content = 'newer'`).Scan(&newer); err != nil {
				t.Fatal(err)
			}
			if newer != 15 {
				t.Errorf("got %d memories with their last content, want 15", newer)
			}
		})
	}
}

// brokenReader fails after its text.
type brokenReader struct{ io.Reader }

var errBroken = errors.New("the disk is gone")

func (r brokenReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errBroken
	}
	return n, err
}

func TestRunKeepsWhatWasReadBeforeAReadError(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	got, err := importer.Run(t.Context(), pool, brokenReader{strings.NewReader(memory("a") + "\n" + memory("b") + "\n" + memory("cut"))}, importer.Options{})
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "read line 3") {
		t.Errorf("got error %v, want one about line 3", err)
	}
	if memories, _ := stored(t, pool); memories != 2 || got.Inserted != 2 {
		t.Errorf("got %d memories, %+v, want 2", memories, got)
	}
}

func TestRunRefusesOptions(t *testing.T) {
	t.Parallel()
	for _, chunk := range []int{-1, importer.MaxChunk + 1} {
		if _, err := importer.Run(t.Context(), nil, strings.NewReader(""), importer.Options{Chunk: chunk}); err == nil {
			t.Errorf("a chunk of %d was taken", chunk)
		}
	}
}

// A slow source: lines are stored although no more come, and Run ends with ctx although Read blocks.
func TestRunOfASlowSource(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	in, out := io.Pipe()
	stop := errors.New("enough")
	progressed := make(chan importer.Progress, 10)
	type result struct {
		summary importer.Summary
		err     error
	}
	done := make(chan result, 1)
	go func() {
		s, err := importer.Run(ctx, pool, in, importer.Options{OnProgress: func(p importer.Progress) { progressed <- p }})
		done <- result{s, err}
	}()
	text := memory("a") + "\n"
	if _, err := io.WriteString(out, text); err != nil {
		t.Fatal(err)
	}
	if p := <-progressed; p.Bytes != int64(len(text)) || p.Summary.Inserted != 1 {
		t.Errorf("got progress %+v, want one line", p)
	}
	cancel(stop)
	got := <-done
	if !errors.Is(got.err, stop) || got.summary.Inserted != 1 {
		t.Errorf("got %+v, want the cause and one line", got)
	}
	if err := in.Close(); err != nil { // lets the reading goroutine go
		t.Fatal(err)
	}
}

func TestSummaryJSON(t *testing.T) {
	t.Parallel()
	s := importer.Summary{
		Lines: 5, Inserted: 1, Updated: 1, Moved: 1, Unchanged: 1, Bad: 1, Took: 2 * time.Second,
		Verdicts: &importer.Verdicts{Met: 2, NotMet: map[outbox.Reason]int64{outbox.ReasonTimeout: 1}, Undecided: 1, Took: 3 * time.Second},
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"lines":5,"entries":4,"inserted":1,"updated":1,"moved":1,"unchanged":1,"bad":1,"seconds":2,"entries_per_second":2,` +
		`"verdicts":{"met":2,"not_met":{"timeout":1},"pruned":0,"undecided":1,"seconds":3}}`
	if !bytes.Equal(got, []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
