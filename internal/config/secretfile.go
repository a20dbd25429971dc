//go:build unix

package config

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

// maxSecretBytes bounds a secret file. A connection URL or an api key is far below; anything larger is another file.
const maxSecretBytes = 64 << 10

// ReadSecretFile returns the one line of text in the file, without its line end. It refuses a file that others may read
// or put in place of the right one: the file must be regular, no symbolic link, at most 64 KiB, owned by this process's
// user or root, without permissions for group and others, in a folder that neither may write to (unless sticky). The
// error says which command mends it. An empty file and control characters are refused too; a header could not carry them.
func ReadSecretFile(path string) (Secret, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return Secret{}, err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	switch {
	case text == "":
		return Secret{}, fmt.Errorf("config: %s is empty: write the secret into it", path)
	case strings.ContainsFunc(text, unicode.IsControl):
		return Secret{}, fmt.Errorf("config: %s has more than one line or control characters: write the secret as one line of text", path)
	}
	return NewSecret(text), nil
}

func readPrivate(path string) ([]byte, error) {
	link, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("config: look at secret file: %w", err)
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("config: %s is a symbolic link: name the file itself", path)
	}
	// Not blocking, so that a named pipe in its place is refused below instead of waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, fmt.Errorf("config: open secret file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened, whatever the path means by now
	if err != nil {
		return nil, fmt.Errorf("config: look at secret file: %w", err)
	}
	if err := checkPrivate(path, info, os.Geteuid()); err != nil {
		return nil, err
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return nil, fmt.Errorf("config: read secret file: %w", err)
	}
	if len(raw) > maxSecretBytes {
		return nil, fmt.Errorf("config: %s is larger than %d bytes: is it the secret?", path, maxSecretBytes)
	}
	return raw, nil
}

// checkPrivate judges a file for the user euid.
func checkPrivate(path string, info fs.FileInfo, euid int) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("config: %s is no regular file: name the file with the secret", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("config: %s has mode %04o, so others may use it: run chmod 600 %s", path, mode, path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("config: this system does not tell who owns a file")
	}
	if owner := int(stat.Uid); owner != euid && owner != 0 {
		return fmt.Errorf("config: %s belongs to user %d, who may change it: run chown %d %s", path, owner, euid, path)
	}
	return nil
}

// checkFolder refuses a folder in which others may replace the file, as sshd's StrictModes does.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("config: look at secret file's folder: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("config: folder %s has mode %04o, so others may replace the secret in it: run chmod go-w %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}
