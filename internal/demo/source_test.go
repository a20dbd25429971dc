package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/outbox"
)

// The sample is what a user sees first: every line is valid, stable to repeat, and shaped so that a receiver keeps it as it is.
func TestSample(t *testing.T) {
	t.Parallel()
	ids, titles, namespaces, kinds := map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]int{}
	present := map[string]int{}
	lines := bytes.Split(bytes.TrimSuffix(sample, []byte("\n")), []byte("\n"))
	for i, text := range lines {
		var m outbox.Memory
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&m); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if err := m.Validate(); err != nil {
			t.Errorf("line %d: %v", i+1, err)
		}
		key := m.Namespace + "\x00" + m.Title
		if ids[m.ID] || titles[key] {
			t.Errorf("line %d: id %s or its title is there twice", i+1, m.ID)
		}
		ids[m.ID], titles[key] = true, true
		namespaces[m.Namespace]++
		kinds[m.MemoryKind]++
		var metadata struct {
			AgentID string `json:"agent_id"`
			Scope   string `json:"scope"`
		}
		if err := json.Unmarshal(m.Metadata, &metadata); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if metadata.Scope != "collective" || metadata.AgentID == "" {
			t.Errorf("line %d: metadata %s: want an author and the scope collective, so that the peers' read paths show it", i+1, m.Metadata)
		}
		if m.Tier != "long" || !m.ExpiresAt.IsZero() {
			t.Errorf("line %d: tier %s, expiry %s: want long and none, or it disappears while somebody looks", i+1, m.Tier, m.ExpiresAt)
		}
		if m.CreatedAt.IsZero() || m.UpdatedAt.Before(m.CreatedAt) {
			t.Errorf("line %d: created %s, updated %s", i+1, m.CreatedAt, m.UpdatedAt)
		}
		var object map[string]any
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		for field := range object {
			present[field]++
		}
	}
	if n := len(lines); n < 300 || n > 400 {
		t.Errorf("got %d lines, want 300 to 400", n)
	}
	if len(namespaces) != 12 {
		t.Errorf("got %d namespaces, want 12: %v", len(namespaces), namespaces)
	}
	if len(kinds) != 10 {
		t.Errorf("got %d kinds, want all ten: %v", len(kinds), kinds)
	}
	for field := range fields() {
		if present[field] == 0 && field != "expires_at" && field != "version" {
			t.Errorf("no memory has the field %s", field)
		}
	}
}

func TestOpenSource(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text    string
		want    int
		wantErr string
	}{
		"one line without an end":  {text: "{}", want: 1},
		"blank lines do not count": {text: "\n{}\n \t\r\n{}\n\n", want: 2},
		"a very long line":         {text: "{" + strings.Repeat(" ", 200_000) + "}\n{}\n", want: 2},
		"a long blank line":        {text: strings.Repeat(" ", 200_000) + "\n{}\n", want: 1},
		"nothing":                  {text: "", wantErr: "has no memories"},
		"only blank lines":         {text: "\n\n", wantErr: "has no memories"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "m.jsonl")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := openSource(path)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got error %v, want %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.size != test.want {
				t.Errorf("got %d lines, want %d", s.size, test.want)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		t.Parallel()
		if _, err := openSource(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want %v", err, os.ErrNotExist)
		}
	})
	t.Run("the sample", func(t *testing.T) {
		t.Parallel()
		s, err := openSource("")
		if err != nil {
			t.Fatal(err)
		}
		if want := bytes.Count(sample, []byte("\n")); s.size != want {
			t.Errorf("got %d lines, want %d", s.size, want)
		}
	})
}

// Lines come in their time, and what happens between them happens exactly there.
func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var got []string
		note := func(what string) { got = append(got, fmt.Sprintf("%s %s", time.Since(start), what)) }
		at := func(n int) stop {
			return stop{at: n, do: func(context.Context) error { note(fmt.Sprintf("stop %d", n)); return nil }}
		}
		g := newGate(t.Context(), strings.NewReader("a\n\nb\nc\nd"), 4, 4*time.Second, []stop{at(0), at(2), at(2)})
		buffer := make([]byte, 64)
		for {
			n, err := g.Read(buffer)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			note(fmt.Sprintf("%q", buffer[:n]))
		}
		want := []string{
			"0s stop 0", `0s "a\n"`, `0s "\n"`, `1s "b\n"`, "1s stop 2", "1s stop 2", `2s "c\n"`, `3s "d"`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestGateKeepsLongLinesWhole(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 200_000) + "\n" + "y\n"
	stops := 0
	g := newGate(t.Context(), strings.NewReader(text), 2, 0, []stop{{at: 1, do: func(context.Context) error { stops++; return nil }}})
	got, err := io.ReadAll(g)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != text || stops != 1 {
		t.Errorf("got %d bytes and %d stops, want %d and 1", len(got), stops, len(text))
	}
}

func TestGateEnds(t *testing.T) {
	t.Parallel()
	errStop := errors.New("stop failed")
	t.Run("with its context", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cause := errors.New("enough")
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
			defer cancel()
			g := newGate(ctx, strings.NewReader("a\nb\n"), 2, time.Hour, nil)
			if _, err := io.ReadAll(g); !errors.Is(err, cause) {
				t.Errorf("got %v, want %v", err, cause)
			}
			if _, err := g.Read(make([]byte, 8)); !errors.Is(err, cause) {
				t.Errorf("then: got %v, want %v", err, cause)
			}
		})
	})
	t.Run("with a stop", func(t *testing.T) {
		t.Parallel()
		g := newGate(t.Context(), strings.NewReader("a\nb\n"), 2, 0, []stop{{at: 1, do: func(context.Context) error { return errStop }}})
		if _, err := io.ReadAll(g); !errors.Is(err, errStop) {
			t.Errorf("got %v, want %v", err, errStop)
		}
	})
	t.Run("when closed", func(t *testing.T) {
		t.Parallel()
		g := newGate(t.Context(), strings.NewReader("a\n"), 1, 0, nil)
		g.close()
		if _, err := g.Read(make([]byte, 8)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
		}
	})
}
