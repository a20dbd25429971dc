//go:build unix

package localpg

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestSweepRemovesOnlyWhatNobodyUses(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	noProcess := 1 << 30 // above the largest number of a process
	tests := map[string]struct {
		name   string
		age    time.Duration
		server int // 0: no server has been started
		locked bool
		want   bool // whether the folder stays
	}{
		"owner was killed":             {temporaryPrefix + "1", 2 * staleAge, noProcess, false, false},
		"owner was killed before lock": {temporaryPrefix + "2", 2 * staleAge, 0, false, false},
		"owner lives":                  {temporaryPrefix + "3", 2 * staleAge, noProcess, true, true},
		"server lives":                 {temporaryPrefix + "4", 2 * staleAge, os.Getpid(), false, true},
		"young":                        {temporaryPrefix + "5", staleAge / 2, noProcess, false, true},
		"folder of others":             {"quorumbox", 2 * staleAge, noProcess, false, true},
	}
	for name, test := range tests {
		dir := filepath.Join(base, test.name)
		if err := os.MkdirAll(filepath.Join(dir, dataName), 0o700); err != nil {
			t.Fatal(err)
		}
		if test.server != 0 {
			pid := fmt.Sprintf("%d\n%s\n", test.server, dir)
			if err := os.WriteFile(filepath.Join(dir, dataName, "postmaster.pid"), []byte(pid), 0o600); err != nil {
				t.Fatal(err)
			}
			lock, err := os.Create(filepath.Join(dir, lockName)) //nolint:gosec // our own folder
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = lock.Close() }) // nothing was written
			if test.locked {
				if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		made := time.Now().Add(-test.age)
		if err := os.Chtimes(dir, made, made); err != nil {
			t.Fatal(err)
		}
	}

	sweepTemporary(t.Context(), []string{filepath.Join(base, "missing"), base}, slog.New(slog.NewTextHandler(t.Output(), nil)))

	for name, test := range tests {
		_, err := os.Stat(filepath.Join(base, test.name))
		if got := err == nil; got != test.want {
			t.Errorf("%s: got folder there %v, want %v (%v)", name, got, test.want, err)
		}
	}
}

func TestTemporaryFolderAvoidsClosedParents(t *testing.T) {
	t.Parallel()
	closed, open := t.TempDir(), t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil { //nolint:gosec // what is tested
		t.Fatal(err)
	}
	// Folders of t.TempDir lie below one of mode 755 or tighter, depending on the umask; only the way in matters here.
	for dir := open; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // what is tested
			t.Fatal(err)
		}
	}
	acc := account{name: "somebody", uid: 4_000_000, gid: 4_000_000}

	path, err := makeTemporary(acc, []string{closed, open})
	if err != nil {
		t.Fatal(err)
	}
	if got := filepath.Dir(path); got != open {
		t.Errorf("got a folder in %s, want in %s", got, open)
	}
	if _, err := makeTemporary(acc, []string{closed}); err == nil {
		t.Error("got no error where every place is closed")
	}
}
