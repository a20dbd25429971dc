package refpeer_test

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quorumbox/internal/refpeer"
)

func TestEnroll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys, seedPath := filepath.Join(dir, "keys"), filepath.Join(dir, "signing.key")
	if err := refpeer.Enroll(keys, sender, seedPath); err != nil {
		t.Fatal(err)
	}
	publicPath := filepath.Join(keys, sender+".pub")
	for _, path := range []string{seedPath, publicPath} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("got %v, %v, want a file for this user only", info, err)
		}
	}
	seed, err := os.ReadFile(seedPath) //nolint:gosec // G304: in the test's own folder
	if err != nil || len(seed) != ed25519.SeedSize {
		t.Fatalf("got a seed of %d bytes, %v, want %d", len(seed), err, ed25519.SeedSize)
	}
	public, err := os.ReadFile(publicPath) //nolint:gosec // G304: as above
	if err != nil || !bytes.Equal(public, ed25519.NewKeyFromSeed(seed)[ed25519.SeedSize:]) {
		t.Errorf("the public key is not that of the seed: %v", err)
	}
}

func TestEnrollWhereItCannotWrite(t *testing.T) {
	t.Parallel()
	err := refpeer.Enroll(t.TempDir(), sender, filepath.Join(t.TempDir(), "none", "signing.key"))
	if err == nil || !strings.Contains(err.Error(), "write a signing key") {
		t.Errorf("got %v, want that the key cannot be written", err)
	}
}
