//go:build unix

package identity

import (
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

// PublicMode is the mode of files that are no secret: public keys, credentials, chains.
const PublicMode fs.FileMode = 0o644

// ReadText returns the text of a credential or chain file without blanks around it: the whole header value. The file must be
// regular, not empty, at most [MaxHeaderBytes] long, and group and others may not write to it. It is no secret, so who may read
// it does not matter, and it may be a symbolic link.
func ReadText(path string) (string, error) {
	text, _, err := readText(path)
	return text, err
}

// readText is ReadText with what the file was when it was read, nil if it could not be opened.
func readText(path string) (string, fs.FileInfo, error) {
	raw, info, err := readPublic(path, MaxHeaderBytes)
	if err != nil {
		return "", info, err
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "", info, fmt.Errorf("%s is empty", path)
	}
	return text, info, nil
}

// LoadPublicKey reads an Ed25519 public key from a file of exactly 32 raw bytes (the ".pub" file of ai-memory) that group and
// others may not write to.
func LoadPublicKey(path string) (ed25519.PublicKey, error) {
	raw, _, err := readPublic(path, MaxHeaderBytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if err := CheckPublicKey(raw); err != nil {
		return nil, fmt.Errorf("public key: %s %w", path, err)
	}
	return raw, nil
}

// LoadBundle reads the roots that a verifier trusts: each file <issuer_id>.pub of the folder, as [LoadPublicKey] does. Peers pass
// over files that are no key; here they are the error, and the bundle has the others.
func LoadBundle(dir string) (map[string]ed25519.PublicKey, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	bundle := map[string]ed25519.PublicKey{}
	var problems []error
	for _, entry := range entries {
		id, isKey := strings.CutSuffix(entry.Name(), ".pub")
		if !isKey || id == "" {
			continue
		}
		key, err := LoadPublicKey(filepath.Join(dir, entry.Name()))
		if err != nil {
			problems = append(problems, fmt.Errorf("trust bundle: %w", err))
			continue
		}
		bundle[id] = key
	}
	return bundle, errors.Join(problems...)
}

// readPublic reads a file of at most limit bytes in which only its owner can write.
func readPublic(path string, limit int64) ([]byte, fs.FileInfo, error) {
	// Not blocking, so that a named pipe is refused below instead of waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened, whatever the path means by now
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, info, fmt.Errorf("%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, info, fmt.Errorf("%s has mode %04o, so others may replace what is in it: run chmod go-w %s", path, mode, path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, info, err
	}
	if int64(len(raw)) > limit {
		return nil, info, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return raw, info, nil
}

// WriteFile puts content into place under path at once: readers see the old file or the new one, never a part, and after a crash
// it is one of the two. The mode is [PublicMode].
func WriteFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	err = fill(f, content, PublicMode)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(dir)
}

// fill writes, syncs and closes f. The mode does not depend on the umask.
func fill(f *os.File, content []byte, mode fs.FileMode) error {
	err := f.Chmod(mode)
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // G304: the operator names the folder
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
