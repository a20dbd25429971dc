package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/config"
)

const docsPath = "../../docs/configuration.md"

// TestDocs keeps the table of docs/configuration.md equal to the settings. UPDATE_DOCS=1 writes it.
func TestDocs(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- settings: made by UPDATE_DOCS=1 go test ./internal/config -->\n", "<!-- end of settings -->\n"
	raw, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost its markers:\n%s%s", docsPath, begin, end)
	}
	want := settingsTable()
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(docsPath, []byte(before+begin+want+end+after), 0o644); err != nil { //nolint:gosec // G306: documentation is public
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, table); d != "" {
		t.Errorf("%s is out of date: run UPDATE_DOCS=1 go test ./internal/config (-want +got):\n%s", docsPath, d)
	}
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("\n| key | default | meaning |\n|---|---|---|\n")
	for _, k := range config.Keys() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", k.Name, k.Default, k.Meaning)
	}
	return b.String() + "\n"
}

// The example of the page is a file that loads.
func TestDocsExample(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "```yaml\n")
	example, _, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatalf("%s has no YAML example", docsPath)
	}
	if cfg := load(t, example); len(cfg.Peers) == 0 {
		t.Error("the example has no peers")
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, k := range config.Keys() {
		if names[k.Name] {
			t.Errorf("%s twice", k.Name)
		}
		names[k.Name] = true
		if k.Meaning == "" || k.Default == "" || strings.Contains(k.Meaning, "|") {
			t.Errorf("%s: meaning %q, default %q: want both, fit for a table", k.Name, k.Meaning, k.Default)
		}
		if inList := strings.Contains(k.Name, "[]"); inList != (k.Env == "") {
			t.Errorf("%s has variable %q", k.Name, k.Env)
		}
	}
}

// Every variable of Keys is known, and every default of Keys is a value that its setting takes.
func TestEveryVariableIsRead(t *testing.T) {
	t.Parallel()
	for _, k := range config.Keys() {
		if k.Env == "" {
			continue
		}
		if _, err := config.Load("", []string{k.Env + "=" + strings.Trim(k.Default, `"`)}); err != nil && k.Name != "sender_id" {
			t.Errorf("%s with the default %s: %v", k.Env, k.Default, err)
		}
	}
}
