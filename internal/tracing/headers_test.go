package tracing_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/tracing"
)

func headersFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadHeaders(t *testing.T) {
	t.Parallel()
	got, err := tracing.ReadHeaders(headersFile(t, "authorization: Bearer a:b\n\nX-Scope-OrgID:7\r\n", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"Authorization": "Bearer a:b", "X-Scope-Orgid": "7"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadHeadersRefuses(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 17 {
		fmt.Fprintf(&many, "X-%d: canary\n", i)
	}
	for text, want := range map[string]string{
		"":                     "is empty",
		"canary":               "line 1",
		"a: b\nx y: canary":    "line 2",
		"a:":                   "line 1",
		"a: canary\x01":        "printable",
		"content-type: canary": "Content-Type",
		"a: canary\nA: canary": "another line",
		many.String():          "more than 16",
	} {
		if _, err := tracing.ReadHeaders(headersFile(t, text, 0o600)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: got %v, want an error with %q and without the text", text, err, want)
		}
	}
	if _, err := tracing.ReadHeaders(headersFile(t, "a: b", 0o644)); err == nil {
		t.Error("a file that others may read was taken")
	}
}
