//go:build unix

package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quorumbox/internal/peer"
)

// KeyDirEnv names the environment variable with the folder of the key files.
const KeyDirEnv = "AI_MEMORY_KEY_DIR"

// The extensions of key files.
const (
	PrivateExt = ".priv" // the raw 32-byte seed, mode 0600
	PublicExt  = ".pub"  // the raw 32-byte public key, mode 0644
)

// KeyPair is a pair of key files.
type KeyPair struct {
	PrivatePath, PublicPath string
	Public                  ed25519.PublicKey
}

// KeyDir returns the folder of the key files: what the environment says in [KeyDirEnv], else ~/.config/ai-memory/keys.
func KeyDir() (string, error) {
	if dir := os.Getenv(KeyDirEnv); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no folder for keys: set %s: %w", KeyDirEnv, err)
	}
	return filepath.Join(home, ".config", "ai-memory", "keys"), nil
}

// GenerateKeys makes a key and writes its two files, <dir>/<agentID>.priv and .pub, to the disk before it returns. The id must be
// one that peers accept as a sender, and without "/", which would make folders of it. The folder is made if it is not there, with
// mode 0700; group and others may not write to it. Files that exist are never written over: a key that peers have enrolled would
// be lost.
func GenerateKeys(dir, agentID string) (KeyPair, error) {
	if err := peer.CheckSenderID(agentID); err != nil {
		return KeyPair{}, fmt.Errorf("generate keys: %w", err)
	}
	if strings.Contains(agentID, "/") {
		return KeyPair{}, fmt.Errorf(`generate keys: %q has a "/", which would make a folder of it: choose an id without`, agentID)
	}
	if err := makeFolder(dir); err != nil {
		return KeyPair{}, fmt.Errorf("generate keys: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("generate keys: %w", err)
	}
	defer clear(private)
	pair := KeyPair{filepath.Join(dir, agentID+PrivateExt), filepath.Join(dir, agentID+PublicExt), public}
	if _, err := os.Lstat(pair.PublicPath); !errors.Is(err, fs.ErrNotExist) {
		return KeyPair{}, fmt.Errorf("generate keys: %w", inTheWay(pair.PublicPath, err))
	}
	if err := create(pair.PrivatePath, private.Seed(), 0o600); err != nil {
		return KeyPair{}, fmt.Errorf("generate keys: %w", err)
	}
	if err := create(pair.PublicPath, public, PublicMode); err != nil {
		return KeyPair{}, errors.Join(fmt.Errorf("generate keys: %w", err), os.Remove(pair.PrivatePath))
	}
	if err := syncFolder(dir); err != nil {
		return KeyPair{}, fmt.Errorf("generate keys: %w", err)
	}
	return pair, nil
}

// inTheWay is the error of a file that could not be made, or that was found (err is nil).
func inTheWay(path string, err error) error {
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fmt.Errorf("%s exists and is not written over: %w", path, fs.ErrExist)
}

// create writes a file that must not exist.
func create(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // G304: the operator names the folder
	if err != nil {
		return inTheWay(path, err)
	}
	if err := fill(f, content, mode); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// makeFolder makes the folder of keys, or checks the one that is there.
func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("folder %s has mode %04o, so others may replace the keys in it: run chmod go-w %s", dir, mode, dir)
	}
	return nil
}

// PublicText returns the public key as ai-memory's export-pub prints it: URL-safe base64 without padding.
func PublicText(key ed25519.PublicKey) string { return base64.RawURLEncoding.EncodeToString(key) }

// Fingerprint returns "sha256:" and the hex digest of the raw public key: short enough to compare by eye or over the phone.
func Fingerprint(key ed25519.PublicKey) string {
	digest := sha256.Sum256(key)
	return "sha256:" + hex.EncodeToString(digest[:])
}
