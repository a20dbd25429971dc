//go:build unix

package secret_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quorumbox/internal/secret"
)

// put writes a secret file by renaming, as one should.
func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(next, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func long(s secret.Secret) error {
	if len(s.Reveal()) < 4 {
		return errors.New("is too short")
	}
	return nil
}

func TestFileFollowsChanges(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	put(t, path, "first\n", 0o600)
	var warnings []error
	f, err := secret.OpenFile(path, long, func(err error) { warnings = append(warnings, err) })
	if err != nil {
		t.Fatal(err)
	}
	want := func(text string, count int) {
		t.Helper()
		if got := f.Get().Reveal(); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
		if len(warnings) != count {
			t.Errorf("got warnings %v, want %d", warnings, count)
		}
	}
	want("first", 0)
	put(t, path, "second", 0o600)
	want("second", 0)
	for i, bad := range []func(){
		func() { put(t, path, "canary-readable", 0o644) },
		func() { put(t, path, "", 0o600) },
		func() { put(t, path, "two\nlines-canary", 0o600) },
		func() { put(t, path, "abc", 0o600) },
		func() { put(t, path, strings.Repeat("canary", 20_000), 0o600) },
		func() { _ = os.Remove(path) },
		func() { _ = os.Mkdir(path, 0o700) },
	} {
		bad()
		want("second", i+1)
		want("second", i+1) // once for each change
		if text := warnings[i].Error(); !strings.Contains(text, path) || strings.Contains(text, "canary") || strings.Contains(text, "abc") {
			t.Errorf("got %q, want the file named and nothing of its content", text)
		}
	}
	_ = os.Remove(path)
	put(t, path, "third", 0o600)
	want("third", 7)
	if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // G302: that is what is refused
		t.Fatal(err)
	}
	want("third", 8)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	want("third", 8)
}

func TestOpenFileRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	warn := func(err error) { t.Errorf("got the warning %v, want an error", err) }
	short, open := filepath.Join(dir, "short"), filepath.Join(dir, "open")
	put(t, short, "abc", 0o600)
	put(t, open, "secret", 0o604)
	for path, want := range map[string]string{short: "is too short", open: "chmod 600", filepath.Join(dir, "absent"): "no such file"} {
		if _, err := secret.OpenFile(path, long, warn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func TestFileIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	put(t, path, "first", 0o600)
	f, err := secret.OpenFile(path, long, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 500 {
				if text := f.Get().Reveal(); text != "first" && text != "other" {
					t.Errorf("got %q", text)
				}
			}
		})
	}
	for _, text := range []string{"other", "first", "other"} {
		put(t, path, text, 0o600)
	}
	readers.Wait()
	if got := f.Get().Reveal(); got != "other" {
		t.Errorf("got %q in the end", got)
	}
}
