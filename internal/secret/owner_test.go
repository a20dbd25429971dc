//go:build unix

package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file is for its owner and may come from root; nobody else's is taken. Judged with other users' eyes, so that the
// test needs no second user.
func TestCheckFileOwner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkFile(path, info, os.Geteuid()); err != nil {
		t.Errorf("own file: %v", err)
	}
	err = checkFile(path, info, os.Geteuid()+1)
	if os.Geteuid() == 0 {
		if err != nil {
			t.Errorf("root's file: %v", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), "run chown") {
		t.Errorf("another user's file: got %v, want an error that says chown", err)
	}
}
