//go:build unix

package identity_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
)

// privateDir is a new folder that nobody else may write to, whatever the umask.
func privateDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	chmod(tb, dir, 0o700)
	return dir
}

func TestGenerateKeys(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(privateDir(t), "a", "keys")
	pair, err := identity.GenerateKeys(dir, "ai:leader")
	if err != nil {
		t.Fatalf("GenerateKeys: %v", err)
	}
	for path, want := range map[string]fs.FileMode{
		dir: 0o700 | fs.ModeDir, filepath.Join(dir, "ai:leader.priv"): 0o600, filepath.Join(dir, "ai:leader.pub"): 0o644,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: got mode %v, want %v", path, info.Mode(), want)
		}
		if info.Mode().IsRegular() && info.Size() != 32 {
			t.Errorf("%s: got %d bytes, want 32", path, info.Size())
		}
	}
	key, err := peer.LoadSigningKey(pair.PrivatePath)
	if err != nil {
		t.Fatalf("LoadSigningKey: %v", err)
	}
	public, err := identity.LoadPublicKey(pair.PublicPath)
	if err != nil {
		t.Fatalf("LoadPublicKey: %v", err)
	}
	if !public.Equal(publicOf(key)) || !public.Equal(pair.Public) {
		t.Error("the files are not those of one key")
	}
	other, err := identity.GenerateKeys(dir, "ai:other")
	if err != nil || other.Public.Equal(pair.Public) {
		t.Errorf("second id: got %v and the key of the first", err)
	}
}

func TestGenerateKeysRefuses(t *testing.T) {
	t.Parallel()
	touch := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name, id string
		make     func(t *testing.T, dir string)
		want     string
		left     []string // files there afterwards
	}{
		{name: "no id", id: "", want: "sender id is empty"},
		{name: "a blank", id: "a b", want: "may hold only"},
		{name: "dots", id: "..", want: `may not hold ".."`},
		{name: "reserved", id: "system", want: "reserved"},
		{name: "a slash", id: "team/a", want: "choose an id without"},
		{name: "private file there", id: "a", make: touch("a.priv"), want: "is not written over", left: []string{"a.priv"}},
		{name: "public file there", id: "a", make: touch("a.pub"), want: "is not written over", left: []string{"a.pub"}},
		{name: "dangling link there", id: "a", make: func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Symlink("nowhere", filepath.Join(dir, "a.pub")); err != nil {
				t.Fatal(err)
			}
		}, want: "is not written over", left: []string{"a.pub"}},
		{name: "folder that others may write to", id: "a", make: func(t *testing.T, dir string) { t.Helper(); chmod(t, dir, 0o770) }, want: "chmod go-w"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := privateDir(t)
			if test.make != nil {
				test.make(t, dir)
			}
			_, err := identity.GenerateKeys(dir, test.id)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			if strings.Contains(test.want, "written over") && !errors.Is(err, fs.ErrExist) {
				t.Errorf("got %v, want fs.ErrExist", err)
			}
			if got := namesIn(t, dir); !slices.Equal(got, test.left) {
				t.Errorf("files: got %v, want %v", got, test.left)
			}
		})
	}
	file := filepath.Join(privateDir(t), "file")
	put(t, file, "x")
	if _, err := identity.GenerateKeys(file, "a"); err == nil {
		t.Error("a file for a folder: got nil, want an error")
	}
}

func namesIn(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestKeyDir(t *testing.T) {
	t.Setenv("HOME", "/home/somebody")
	t.Setenv(identity.KeyDirEnv, "")
	if got, err := identity.KeyDir(); err != nil || got != "/home/somebody/.config/ai-memory/keys" {
		t.Errorf("default: got %q, %v", got, err)
	}
	t.Setenv(identity.KeyDirEnv, "/keys")
	if got, err := identity.KeyDir(); err != nil || got != "/keys" {
		t.Errorf("environment: got %q, %v", got, err)
	}
	t.Setenv(identity.KeyDirEnv, "")
	t.Setenv("HOME", "")
	if _, err := identity.KeyDir(); err == nil || !strings.Contains(err.Error(), identity.KeyDirEnv) {
		t.Errorf("no home: got %v, want an error that names the variable", err)
	}
}

func TestLoadPublicKeyRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		content []byte
		mode    fs.FileMode
		want    string
	}{
		{"short", make([]byte, 31), 0o644, "has 31 bytes"},
		{"hex", []byte(strings.Repeat("ab", 32)), 0o644, "has 64 bytes"},
		{"no point", noPoint(), 0o644, "is no point of the curve"},
		{"others can write", publicOf(nodeKey()), 0o646, "chmod go-w"},
	} {
		path := filepath.Join(t.TempDir(), "a.pub")
		put(t, path, string(test.content))
		chmod(t, path, test.mode)
		if key, err := identity.LoadPublicKey(path); err == nil || key != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
	if _, err := identity.LoadPublicKey(filepath.Join(t.TempDir(), "a.pub")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want fs.ErrNotExist", err)
	}
}

func TestLoadBundle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "root.pub"), string(publicOf(rootKey())))
	put(t, filepath.Join(dir, "short.pub"), "short")
	put(t, filepath.Join(dir, "root.priv"), "not looked at")
	put(t, filepath.Join(dir, ".pub"), "of nobody")
	bundle, err := identity.LoadBundle(dir)
	if err == nil || !strings.Contains(err.Error(), "short.pub has 5 bytes") || strings.Contains(err.Error(), "priv") {
		t.Errorf("got %v, want an error of short.pub alone", err)
	}
	if len(bundle) != 1 || !bundle["root"].Equal(publicOf(rootKey())) {
		t.Errorf("got %d roots, want root alone", len(bundle))
	}
	if _, err := identity.LoadBundle(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: got %v, want fs.ErrNotExist", err)
	}
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "cred")
	put(t, path, "first")
	before, err := os.Open(path) //nolint:gosec // G304: a file of this test
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	put(t, path, "second")
	old := make([]byte, 10)
	n, _ := before.Read(old)
	text, err := identity.ReadText(path)
	if string(old[:n]) != "first" || text != "second" || err != nil {
		t.Errorf("got %q before and %q now (%v), want first and second: the file was written over in place", old[:n], text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode: got %v, %v", info.Mode(), err)
	}
	if got := namesIn(t, dir); !slices.Equal(got, []string{"cred"}) {
		t.Errorf("files: got %v, want cred alone", got)
	}
	if err := identity.WriteFile(filepath.Join(dir, "none", "cred"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: got %v, want fs.ErrNotExist", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := identity.WriteFile(filepath.Join(dir, "d"), []byte("x")); err == nil {
		t.Error("over a folder: got nil, want an error")
	}
	if got := namesIn(t, dir); !slices.Equal(got, []string{"cred", "d"}) {
		t.Errorf("files after a failure: got %v, want cred and d", got)
	}
}

func TestKeyTexts(t *testing.T) {
	t.Parallel()
	if got, want := identity.PublicText(publicOf(nodeKey())), "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"; got != want {
		t.Errorf("text: got %s, want %s", got, want)
	}
	if got, want := identity.Fingerprint(publicOf(nodeKey())), "sha256:56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"; got != want {
		t.Errorf("fingerprint: got %s, want %s", got, want)
	}
}
