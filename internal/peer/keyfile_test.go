//go:build unix

package peer_test

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quorumbox/internal/peer"
)

// writeFile writes a file with exactly the given mode into a new private directory and returns its path.
func writeFile(tb testing.TB, name string, content []byte, mode os.FileMode) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // G302: a directory.
		tb.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
	return path
}

func TestLoadSigningKey(t *testing.T) {
	t.Parallel()
	want := nodeKey()
	public := want[ed25519.SeedSize:]
	for _, test := range []struct {
		name   string
		public []byte
		mode   os.FileMode
	}{
		{"no public key", nil, 0o600},
		{"read-only", nil, 0o400},
		{"with its public key", public, 0o600},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := writeFile(t, "ai:leader.priv", want.Seed(), test.mode)
			if test.public != nil {
				if err := os.WriteFile(strings.TrimSuffix(path, ".priv")+".pub", test.public, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := peer.LoadSigningKey(path)
			if err != nil {
				t.Fatalf("LoadSigningKey: %v", err)
			}
			if !bytes.Equal(got, want) {
				t.Error("got another key")
			}
		})
	}
}

func TestLoadSigningKeyRefuses(t *testing.T) {
	t.Parallel()
	seed := nodeKey().Seed()
	tests := []struct {
		name string
		path func(t *testing.T) string
		want string
	}{
		{"no file", func(t *testing.T) string {
			t.Helper()
			return filepath.Join(filepath.Dir(writeFile(t, "other", seed, 0o600)), "x.priv")
		}, "no such file"},
		{"no directory", func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "none", "x.priv") }, "no such file"},
		{"group can read", func(t *testing.T) string { t.Helper(); return writeFile(t, "x.priv", seed, 0o640) }, "run chmod 600"},
		{"others can read", func(t *testing.T) string { t.Helper(); return writeFile(t, "x.priv", seed, 0o604) }, "run chmod 600"},
		{"group can write", func(t *testing.T) string { t.Helper(); return writeFile(t, "x.priv", seed, 0o620) }, "run chmod 600"},
		{"directory", func(t *testing.T) string {
			t.Helper()
			path := filepath.Join(filepath.Dir(writeFile(t, "x.priv", seed, 0o600)), "d")
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			return path
		}, "no regular file"},
		{"FIFO", func(t *testing.T) string {
			t.Helper()
			path := filepath.Join(filepath.Dir(writeFile(t, "x.priv", seed, 0o600)), "fifo")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "no regular file"},
		{"directory that others can write", func(t *testing.T) string {
			t.Helper()
			path := writeFile(t, "x.priv", seed, 0o600)
			if err := os.Chmod(filepath.Dir(path), 0o777); err != nil { //nolint:gosec // G302: the mode that is refused.
				t.Fatal(err)
			}
			return path
		}, "run chmod go-w"},
		{"other owner", func(t *testing.T) string {
			t.Helper()
			path := writeFile(t, "x.priv", seed, 0o600)
			if os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			if err := os.Chown(path, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			return path
		}, "belongs to user 65534"},
		{"short", func(t *testing.T) string { t.Helper(); return writeFile(t, "x.priv", seed[:31], 0o600) }, "has 31 bytes: it must hold the raw seed"},
		{"hex", func(t *testing.T) string {
			t.Helper()
			return writeFile(t, "x.priv", bytes.Repeat([]byte("ab"), 32), 0o600)
		}, "has 64 bytes: it must hold the raw seed"},
		{"huge", func(t *testing.T) string { t.Helper(); return writeFile(t, "x.priv", make([]byte, 65537), 0o600) }, "larger than 65536 bytes"},
		{"another public key", func(t *testing.T) string {
			t.Helper()
			path := writeFile(t, "x.priv", seed, 0o600)
			if err := os.WriteFile(strings.TrimSuffix(path, ".priv")+".pub", make([]byte, 32), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "is not the public key of"},
		{"unreadable public key", func(t *testing.T) string {
			t.Helper()
			path := writeFile(t, "x.priv", seed, 0o600)
			if err := os.Mkdir(strings.TrimSuffix(path, ".priv")+".pub", 0o700); err != nil {
				t.Fatal(err)
			}
			return path
		}, "read the public key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			key, err := peer.LoadSigningKey(test.path(t))
			if err == nil || key != nil {
				t.Fatalf("got %v and a key of %d bytes, want an error and no key", err, len(key))
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to contain %q", err, test.want)
			}
		})
	}
}
