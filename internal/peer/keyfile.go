//go:build unix

package peer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSecretBytes bounds a secret file.
const maxSecretBytes = 64 << 10

// LoadSigningKey reads an Ed25519 private key from a file of exactly 32 raw bytes, the seed (the ".priv" file of ai-memory).
// The file must be a regular file of mode 0600 or less that the user of this process owns, no symbolic link, in a directory
// that neither group nor others can write. If a public key lies beside it (the same name with the extension .pub, 32 raw
// bytes) it must be that of the seed. Errors say what to do and never hold any of the content.
func LoadSigningKey(path string) (ed25519.PrivateKey, error) {
	seed, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	defer clear(seed)
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("signing key: %s has %d bytes: it must hold the raw seed of %d bytes, neither hex nor base64",
			path, len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)

	publicPath := strings.TrimSuffix(path, filepath.Ext(path)) + ".pub"
	public, err := os.ReadFile(publicPath) //nolint:gosec // G304: the path comes from the operator's configuration.
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return key, nil
	case err != nil:
		return nil, fmt.Errorf("signing key: read the public key: %w", err)
	case !bytes.Equal(public, key[ed25519.SeedSize:]):
		return nil, fmt.Errorf("signing key: %s is not the public key of %s: restore the pair or remove the .pub file", publicPath, path)
	}
	return key, nil
}

// LoadSecret reads a secret such as an API key from a file, with the same demands on the file as [LoadSigningKey]. One newline at
// the end is dropped. The secret must be 1 byte to 64 KiB long.
func LoadSecret(path string) (Secret, error) {
	content, err := readPrivate(path)
	if err != nil {
		return Secret{}, fmt.Errorf("secret: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return Secret{}, fmt.Errorf("secret: %s is empty: write the secret into it", path)
	}
	return NewSecret(text), nil
}

// readPrivate reads a file of at most maxSecretBytes that nobody but the process's user can read or replace.
func readPrivate(path string) ([]byte, error) {
	dir := filepath.Dir(path)
	parent, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if parent.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s can be written by others: run chmod go-w %s", dir, dir)
	}
	// O_NOFOLLOW refuses a symbolic link; O_NONBLOCK keeps a FIFO from blocking the start. The checks are made on the open file, so
	// that it cannot be exchanged in between.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // G304: as above.
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: name the file itself", path)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	if info.Size() > maxSecretBytes {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are allowed", path, info.Size(), maxSecretBytes)
	}
	return io.ReadAll(io.LimitReader(file, maxSecretBytes))
}

func checkPrivate(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o and others can reach it: run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the owner cannot be told on this system", path)
	}
	if uid := os.Geteuid(); int(stat.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d and this process runs as %d: run chown %d %s", path, stat.Uid, uid, uid, path)
	}
	return nil
}
