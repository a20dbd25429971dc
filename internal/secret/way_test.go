//go:build unix

package secret

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const stranger = 12345 // a user and a group that are nobody's here

// asRoot judges what this process owns as if it were root's, for another user whose group is that of the files. So the test needs neither root nor a second user.
func asRoot(t *testing.T) reader {
	t.Helper()
	return reader{user: stranger, groups: []int{os.Getegid()}, admins: []int{0, os.Geteuid()}}
}

func own(t *testing.T) reader {
	t.Helper()
	r, err := currentReader()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tree makes files, folders and links below a new folder that nobody else may write to. A name that ends with "/" is a folder, and a text that begins with "->" the
// target of a link. Modes are set in the end, the deepest first.
type tree []struct {
	name, text string
	mode       fs.FileMode
}

func (tr tree) plant(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Chmod(dir, 0o700)) //nolint:gosec // G302: a folder
	for _, n := range tr {
		path := filepath.Join(dir, n.name)
		target, link := strings.CutPrefix(n.text, "->")
		switch {
		case link:
			check(os.Symlink(strings.ReplaceAll(target, "DIR", dir), path))
		case strings.HasSuffix(n.name, "/"):
			check(os.Mkdir(path, 0o700))
		default:
			check(os.WriteFile(path, []byte(n.text), 0o600))
		}
	}
	for _, n := range slices.Backward(tr) {
		if !strings.HasPrefix(n.text, "->") {
			check(os.Chmod(filepath.Join(dir, n.name), n.mode))
		}
	}
	return dir
}

// kubernetes is a secret volume as the kubelet makes it for a pod with an fsGroup (AtomicWriter, SetVolumeOwnership): a sticky folder that all may write to, a folder for
// each version, and links to what is in the newest one.
func kubernetes(file fs.FileMode) tree {
	const folder = fs.ModeSetgid | 0o755
	return tree{
		{"vol/", "", fs.ModeSticky | fs.ModeSetgid | 0o777},
		{"vol/..2026_11_30_23_08_48.1234567890/", "", folder},
		{"vol/..2026_11_30_23_08_48.1234567890/api-key", "s3cr3t", file},
		{"vol/..data", "->..2026_11_30_23_08_48.1234567890", 0},
		{"vol/api-key", "->..data/api-key", 0},
	}
}

func TestWay(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		tree tree
		path string // below the folder; "": api-key
		who  func(t *testing.T) reader
		err  string // part of the error; "": it is read
	}{
		{name: "Kubernetes volume, mode 0440", tree: kubernetes(0o440), path: "vol/api-key", who: asRoot},
		{name: "Kubernetes volume, mode 0400", tree: kubernetes(0o400), path: "vol/api-key", who: asRoot},
		{name: "Kubernetes volume, default mode", tree: kubernetes(0o644), path: "vol/api-key", who: asRoot, err: "defaultMode: 0400"},
		{name: "Kubernetes volume of another group", tree: kubernetes(0o440), path: "vol/api-key", who: func(t *testing.T) reader {
			t.Helper()
			r := asRoot(t)
			r.groups = []int{stranger}
			return r
		}, err: "which is not this process's: run chgrp 12345 "},
		{name: "root's, group may write", tree: tree{{"api-key", "s3cr3t", 0o660}}, who: asRoot, err: "run chmod 640 "},
		{name: "root's, others may read", tree: tree{{"api-key", "s3cr3t", 0o604}}, who: asRoot, err: "has mode 0604"},
		{name: "own, group may read", tree: tree{{"api-key", "s3cr3t", 0o640}}, who: own, err: "run chmod 600 "},
		{name: "own, only to be read", tree: tree{{"api-key", "s3cr3t", 0o400}}, who: own},
		{name: "link to an absolute path", tree: tree{{"a/", "", 0o700}, {"a/key", "s3cr3t", 0o600}, {"api-key", "->DIR/a/key", 0}}, who: own},
		{name: "link up and down", tree: tree{{"a/", "", 0o755}, {"b/", "", 0o711}, {"b/key", "s3cr3t", 0o600}, {"a/key", "->../b/./key", 0}}, path: "a/key", who: own},
		{name: "folder that is a link", tree: tree{{"a/", "", 0o700}, {"a/key", "s3cr3t", 0o600}, {"b", "->a", 0}}, path: "b/key", who: own},
		{
			name: "folder before the last that others may write", who: own, path: "a/b/key", err: "/a has mode 0777",
			tree: tree{{"a/", "", 0o777}, {"a/b/", "", 0o700}, {"a/b/key", "s3cr3t", 0o600}},
		},
		{
			name: "link in a folder that others may write", who: own, path: "a/key", err: "/a has mode 0775",
			tree: tree{{"key", "s3cr3t", 0o600}, {"a/", "", 0o775}, {"a/key", "->../key", 0}},
		},
		{
			name: "link to a folder that others may write", who: own, err: "/a has mode 0757",
			tree: tree{{"a/", "", 0o757}, {"a/key", "s3cr3t", 0o600}, {"api-key", "->a/key", 0}},
		},
		{name: "link to itself", tree: tree{{"api-key", "->api-key", 0}}, who: own, err: "more than 40 symbolic links"},
		{name: "link to nothing", tree: tree{{"api-key", "->none", 0}}, who: own, err: "no such file"},
		{name: "link to a folder", tree: tree{{"a/", "", 0o700}, {"api-key", "->a", 0}}, who: own, err: "no regular file"},
		{name: "file taken for a folder", tree: tree{{"a", "s3cr3t", 0o600}}, path: "a/key", who: own, err: "not a directory"},
		{name: "the root", path: strings.Repeat("../", 40), who: own, err: "no regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := tt.path
			if path == "" {
				path = "api-key"
			}
			got, err := tt.who(t).read(tt.tree.plant(t) + "/" + path)
			if tt.err == "" && (err != nil || string(got) != "s3cr3t") {
				t.Errorf("got %q, %v, want the secret", got, err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// What belongs to a user that is neither root nor ours is not gone through, and their links are not followed.
func TestWayOfAStranger(t *testing.T) {
	t.Parallel()
	folder := tree{{"a/", "", 0o755}, {"a/key", "s3cr3t", 0o600}}.plant(t)
	link := tree{{"a/", "", fs.ModeSticky | 0o777}, {"key", "s3cr3t", 0o600}, {"a/key", "->../key", 0}}.plant(t)
	for _, tt := range []struct{ name, dir, owned, want string }{
		{"folder", folder, "a", "/a belongs to user 12345"},
		{"link", link, "a/key", "is a symbolic link of user 12345"},
		{"file", folder, "a/key", "key belongs to user 12345"},
	} {
		if err := os.Lchown(filepath.Join(tt.dir, tt.owned), stranger, -1); err != nil {
			t.Skipf("only root can give a file away: %v", err)
		}
		if got, err := own(t).read(tt.dir + "/a/key"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q, %v, want an error with %q", tt.name, got, err, tt.want)
		}
		if err := os.Lchown(filepath.Join(tt.dir, tt.owned), os.Geteuid(), -1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(tree{{"a/", "", 0o700}, {"a/key", "s3cr3t", 0o600}}.plant(t))
	for _, path := range []string{"a/key", "./a//key", "a/../a/key"} {
		if got, err := own(t).read(path); err != nil || string(got) != "s3cr3t" {
			t.Errorf("%s: got %q, %v, want the secret", path, got, err)
		}
	}
}
