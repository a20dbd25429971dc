package refpeer

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Enroll makes an Ed25519 key pair for a sender. The raw seed goes to seedPath, for the one who signs; the public key into the
// folder keysDir, which is made, for the peers that get it as [Config.KeysDir]. Both are for this user only.
func Enroll(keysDir, sender, seedPath string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	err = errors.Join(
		os.MkdirAll(keysDir, 0o700),
		os.WriteFile(filepath.Join(keysDir, sender+".pub"), public, 0o600),
		os.WriteFile(seedPath, private.Seed(), 0o600),
	)
	if err != nil {
		return fmt.Errorf("write a signing key: %w", err)
	}
	return nil
}
