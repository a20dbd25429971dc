//go:build unix

package secret

import (
	"fmt"

	"quorumbox/internal/follow"
)

// File is a secret in a file that may be replaced while the program runs. Make it with [OpenFile]. It is safe for concurrent use and starts no goroutine.
type File struct {
	files *follow.Files[Secret]
}

// OpenFile returns the secret in a file that [ReadFile] takes and check has nothing against. warn is told, once for each change, when a file that changed
// cannot be used; it must be safe for concurrent use. Neither may be nil.
func OpenFile(path string, check func(Secret) error, warn func(error)) (*File, error) {
	read := func() (Secret, error) {
		secret, err := ReadFile(path)
		if err != nil {
			return Secret{}, err
		}
		if err := check(secret); err != nil {
			return Secret{}, fmt.Errorf("%s: %w", path, err)
		}
		return secret, nil
	}
	files, err := follow.New(read, func(err error) {
		warn(fmt.Errorf("the changed file cannot be used, going on with the last secret: %w", err))
	}, path)
	if err != nil {
		return nil, err
	}
	return &File{files}, nil
}

// Get returns the secret. It looks at the file, and reads it if it changed since the last call. While it cannot be used, because it is gone, half-written or
// readable by others, Get goes on with the last secret that could.
func (f *File) Get() Secret { return f.files.Get() }
