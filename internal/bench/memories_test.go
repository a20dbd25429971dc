//go:build unix

package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorumbox/outbox"
)

func TestGeneratedMemories(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 78, 120, outbox.MaxContentBytes} {
		m, err := newMemories("", size)
		if err != nil {
			t.Fatal(err)
		}
		ids, titles := map[string]bool{}, map[string]bool{}
		for range 100 {
			memory := m.new()
			if err := memory.Validate(); err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			if len(memory.Content) != size {
				t.Fatalf("content: got %d bytes, want %d", len(memory.Content), size)
			}
			ids[memory.ID], titles[memory.Namespace+memory.Title] = true, true
		}
		if len(ids) != 100 || len(titles) != 100 {
			t.Errorf("got %d ids and %d titles, want 100 of each", len(ids), len(titles))
		}
	}
}

func TestMemoriesOfAFileAreFreshEachTime(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", outbox.MaxTitleChars)
	path := writeFile(t, `{"id":"a","namespace":"n","title":"`+long+`","content":"c","created_at":"2022-01-21T19:31:00.000000+00:00","updated_at":"2022-01-21T19:31:00.000000+00:00"}

{"id":"b","namespace":"n","title":"t","content":"c"}
`)
	m, err := newMemories(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 10 {
		memory := m.new()
		if err := memory.Validate(); err != nil {
			t.Fatal(err)
		}
		if seen[memory.ID] || seen[memory.Title] {
			t.Fatalf("%q, %q came twice", memory.ID, memory.Title)
		}
		seen[memory.ID], seen[memory.Title] = true, true
		if _, err := newRow(memory, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMemoriesRefuse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ path, says string }{
		"no file":        {filepath.Join(t.TempDir(), "none.jsonl"), "no such file"},
		"empty":          {writeFile(t, "\n"), "holds no memory"},
		"no JSON":        {writeFile(t, `{"id":"a","namespace":"n","title":"t","content":"c"}`+"\n{"), "line 2"},
		"invalid memory": {writeFile(t, `{"id":"a","namespace":"n","title":"t"}`), "line 1: content"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newMemories(test.path, 1)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
		})
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "memories.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
