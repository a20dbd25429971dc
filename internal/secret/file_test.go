//go:build unix

package secret_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quorumbox/internal/secret"
)

// Security checklist, private keys and api keys: mode, owner, kind of file, folder.
func TestReadFile(t *testing.T) {
	t.Parallel()
	write := func(text string, mode os.FileMode) func(t *testing.T, dir string) string {
		return func(t *testing.T, dir string) string {
			t.Helper()
			path := filepath.Join(dir, "secret")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	tests := []struct {
		name  string
		setup func(t *testing.T, dir string) string
		want  string // the secret
		err   string // or part of the error
	}{
		{name: "mode 0600", setup: write("s3cr3t", 0o600), want: "s3cr3t"},
		{name: "mode 0400", setup: write("s3cr3t", 0o400), want: "s3cr3t"},
		{name: "line end", setup: write("s3cr3t\n", 0o600), want: "s3cr3t"},
		{name: "line end of Windows", setup: write("s3cr3t\r\n", 0o600), want: "s3cr3t"},
		{name: "blanks are part of it", setup: write(" s3cr3t ", 0o600), want: " s3cr3t "},
		{name: "largest", setup: write(strings.Repeat("s", 64<<10), 0o600), want: strings.Repeat("s", 64<<10)},
		{name: "group may read", setup: write("s3cr3t", 0o640), err: "run chmod 600 "},
		{name: "others may read", setup: write("s3cr3t", 0o604), err: "has mode 0604"},
		{name: "others may write", setup: write("s3cr3t", 0o602), err: "run chmod 600 "},
		{name: "too large", setup: write(strings.Repeat("s", 64<<10+1), 0o600), err: "larger than 65536"},
		{name: "empty", setup: write("", 0o600), err: "is empty"},
		{name: "only a line end", setup: write("\n", 0o600), err: "is empty"},
		{name: "two lines", setup: write("s3cr3t\nX-Header: 1", 0o600), err: "one line"},
		{name: "binary", setup: write("s3cr3t\x00", 0o600), err: "control characters"},
		{name: "absent", setup: func(_ *testing.T, dir string) string { return filepath.Join(dir, "absent") }, err: "no such file"},
		{name: "no name", setup: func(*testing.T, string) string { return "" }, err: "no secret file is named"},
		{name: "folder", setup: func(_ *testing.T, dir string) string { return dir }, err: "no regular file"},
		{name: "symbolic link", setup: func(t *testing.T, dir string) string {
			t.Helper()
			link := filepath.Join(dir, "link")
			if err := os.Symlink(write("s3cr3t", 0o600)(t, dir), link); err != nil {
				t.Fatal(err)
			}
			return link
		}, want: "s3cr3t"},
		{name: "named pipe", setup: func(t *testing.T, dir string) string {
			t.Helper()
			pipe := filepath.Join(dir, "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Skip(err)
			}
			return pipe
		}, err: "no regular file"},
		{name: "folder that others may write", setup: func(t *testing.T, dir string) string {
			t.Helper()
			path := write("s3cr3t", 0o600)(t, dir)
			if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // G302: the case itself
				t.Fatal(err)
			}
			return path
		}, err: "chmod go-w"},
		{name: "sticky folder", setup: func(t *testing.T, dir string) string {
			t.Helper()
			path := write("s3cr3t", 0o600)(t, dir)
			if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
				t.Fatal(err)
			}
			return path
		}, want: "s3cr3t"},
		{name: "another owner", setup: func(t *testing.T, dir string) string {
			t.Helper()
			path := write("s3cr3t", 0o600)(t, dir)
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Skip("only root can give a file away: the owner's rule is checked in TestWay too")
			}
			return path
		}, err: "belongs to user 12345"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := secret.ReadFile(tt.setup(t, privateDir(t)))
			if tt.err == "" {
				if err != nil || got.Reveal() != tt.want {
					t.Errorf("got %.40q, %v, want %.40q", got.Reveal(), err, tt.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// Raw bytes come as they are; the file is judged as any other.
func TestReadRaw(t *testing.T) {
	t.Parallel()
	path := filepath.Join(privateDir(t), "key")
	want := []byte("\x00\n\xff\r\n")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := secret.ReadRaw(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := os.Chmod(path, 0o640); err != nil { //nolint:gosec // G302: the case itself
		t.Fatal(err)
	}
	if got, err := secret.ReadRaw(path); err == nil || len(got) != 0 || !strings.Contains(err.Error(), "run chmod 600 ") {
		t.Errorf("got %q, %v, want an error that says chmod", got, err)
	}
}

// privateDir is a new folder that nobody else may write to, whatever the umask.
func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // G302: a folder
		t.Fatal(err)
	}
	return dir
}
