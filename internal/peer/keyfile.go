//go:build unix

package peer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quorumbox/internal/secret"
)

// LoadSigningKey reads an Ed25519 private key from a file of exactly 32 raw bytes, the seed (the ".priv" file of ai-memory).
// The file must be one that [secret.ReadRaw] takes: nobody else can read or replace it. If a public key lies beside it (the
// same name with the extension .pub, 32 raw bytes) it must be that of the seed. Errors say what to do and never hold any of
// the content.
func LoadSigningKey(path string) (ed25519.PrivateKey, error) {
	seed, err := secret.ReadRaw(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	defer clear(seed)
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("signing key: %s has %d bytes: it must hold the raw seed of %d bytes, neither hex nor base64",
			path, len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)

	publicPath := PublicKeyFile(path)
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

// PublicKeyFile is where [LoadSigningKey] looks for the public key of the private one at path.
func PublicKeyFile(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".pub" }
