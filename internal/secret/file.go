//go:build unix

package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode"
)

// MaxFileBytes bounds a secret file: 64 KiB. A connection URL, an api key or a signing key is far below; anything larger is
// another file.
const MaxFileBytes = 64 << 10

// ReadFile returns the one line of text in the file, without its line end. The file must be one that [ReadRaw] takes. An
// empty file and control characters are refused too; a header could not carry them.
func ReadFile(path string) (Secret, error) {
	raw, err := ReadRaw(path)
	if err != nil {
		return Secret{}, err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	switch {
	case text == "":
		return Secret{}, fmt.Errorf("%s is empty: write the secret into it", path)
	case strings.ContainsFunc(text, unicode.IsControl):
		return Secret{}, fmt.Errorf("%s has more than one line or control characters: write the secret as one line of text", path)
	}
	return New(text), nil
}

// ReadRaw returns the bytes of a secret file. It refuses a file that others may read or put in place of the right one. The
// file must be regular, at most [MaxFileBytes] long, and
//   - owned by this process's effective user, with no permission for group and others (mode 0600 or less), or
//   - owned by root, with at most the right to read for a group that is one of the process's (mode 0640 or less): how
//     Kubernetes mounts a secret for the fsGroup of a pod, and how Postgres wants a system's key.
//
// Every folder and every symbolic link on the way to it, from the root on, must be owned by the process's user or root; and nobody
// else may write to such a folder, unless it is sticky, in which nobody can replace what is another's.
//
// Each step of the way is taken from the one before, which is open, and what is opened is judged: nobody can exchange a part of
// the path meanwhile. The error says which command mends it, and holds nothing of the content.
func ReadRaw(path string) ([]byte, error) {
	who, err := currentReader()
	if err != nil {
		return nil, err
	}
	return who.read(path)
}

// reader is the user that a file is judged for.
type reader struct {
	user   int
	groups []int
	admins []int // users that may do as they like anyhow: root
}

func currentReader() (reader, error) {
	groups, err := os.Getgroups()
	if err != nil {
		return reader{}, fmt.Errorf("look up this process's groups: %w", err)
	}
	return reader{user: os.Geteuid(), groups: append(groups, os.Getegid()), admins: []int{0}}, nil
}

// trusts reports whether what the owner has may be relied on.
func (r reader) trusts(owner int) bool { return owner == r.user || slices.Contains(r.admins, owner) }

func (r reader) read(path string) ([]byte, error) {
	f, err := r.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read secret file: %w", err)
	}
	if len(raw) > MaxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes: is it the secret?", path, MaxFileBytes)
	}
	return raw, nil
}

// checkFile judges the file itself. path is where it really is.
func (r reader) checkFile(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: name the file with the secret", path)
	}
	owner, group, err := ownerOf(info)
	if err != nil {
		return err
	}
	mode := info.Mode().Perm()
	switch {
	case !r.trusts(owner):
		return fmt.Errorf("%s belongs to user %d, who may change it: run chown %d %s", path, owner, r.user, path)
	case owner == r.user && mode&0o077 != 0:
		return fmt.Errorf("%s has mode %04o, so others may use it: run chmod 600 %s", path, mode, path)
	case mode&0o037 != 0:
		return fmt.Errorf("%s has mode %04o, so others may use it: run chmod 640 %s (in Kubernetes set defaultMode: 0400)", path, mode, path)
	case mode&0o040 != 0 && !slices.Contains(r.groups, group):
		return fmt.Errorf("%s may be read by group %d, which is not this process's: run chgrp %d %s", path, group, r.groups[len(r.groups)-1], path)
	}
	return nil
}

// checkFolder refuses a folder in which others may replace what is in it, as sshd's StrictModes does.
func (r reader) checkFolder(path string, info fs.FileInfo) error {
	owner, _, err := ownerOf(info)
	if err != nil {
		return err
	}
	if !r.trusts(owner) {
		return fmt.Errorf("folder %s belongs to user %d, who may replace the secret in it: run chown %d %s", path, owner, r.user, path)
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("folder %s has mode %04o, so others may replace the secret in it: run chmod go-w %s", path, mode.Perm(), path)
	}
	return nil
}

func ownerOf(info fs.FileInfo) (user, group int, err error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, errors.New("this system does not tell who owns a file")
	}
	return int(stat.Uid), int(stat.Gid), nil
}
