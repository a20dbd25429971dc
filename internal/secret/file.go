//go:build unix

package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
// file must be
//   - regular, and no symbolic link,
//   - without permissions for group and others (mode 0600 or less),
//   - owned by this process's effective user or by root,
//   - in a folder that neither group nor others may write to, sticky or not,
//   - at most [MaxFileBytes] long.
//
// The error says which command mends it, and holds nothing of the content.
func ReadRaw(path string) ([]byte, error) {
	link, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("look at secret file: %w", err)
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link: name the file itself", path)
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// Following no link that has come since, and not blocking, so that a named pipe is refused below instead of waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, fmt.Errorf("open secret file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened, whatever the path means by now
	if err != nil {
		return nil, fmt.Errorf("look at secret file: %w", err)
	}
	if err := checkFile(path, info, os.Geteuid()); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read secret file: %w", err)
	}
	if len(raw) > MaxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes: is it the secret?", path, MaxFileBytes)
	}
	return raw, nil
}

// checkFile judges a file for the user euid.
func checkFile(path string, info fs.FileInfo, euid int) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: name the file with the secret", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others may use it: run chmod 600 %s", path, mode, path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("this system does not tell who owns a file")
	}
	if owner := int(stat.Uid); owner != euid && owner != 0 {
		return fmt.Errorf("%s belongs to user %d, who may change it: run chown %d %s", path, owner, euid, path)
	}
	return nil
}

// checkFolder refuses a folder in which others may replace the file, as sshd's StrictModes does.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at secret file's folder: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("folder %s has mode %04o, so others may replace the secret in it: run chmod go-w %s", dir, mode, dir)
	}
	return nil
}
