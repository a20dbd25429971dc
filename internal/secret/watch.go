//go:build unix

package secret

import (
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
)

// File is a secret in a file that may be replaced while the program runs. Make it with [OpenFile]. It is safe for concurrent use and starts no goroutine.
type File struct {
	path    string
	check   func(Secret) error
	warn    func(error)
	current atomic.Pointer[held]
}

// held never changes.
type held struct {
	secret Secret
	seen   fs.FileInfo // the file when it was tried last, whether or not secret is from it; nil: it was not there
}

// OpenFile returns the secret in a file that [ReadFile] takes and check has nothing against. warn is told, once for each change, when a file that changed
// cannot be used; it must be safe for concurrent use. Neither may be nil.
func OpenFile(path string, check func(Secret) error, warn func(error)) (*File, error) {
	f := &File{path: path, check: check, warn: warn}
	seen := f.look()
	secret, err := f.read()
	if err != nil {
		return nil, err
	}
	f.current.Store(&held{secret, seen})
	return f, nil
}

// Get returns the secret. It looks at the file, and reads it if it changed since the last call. While it cannot be used, because it is gone, half-written or
// readable by others, Get goes on with the last secret that could.
func (f *File) Get() Secret {
	last, seen := f.current.Load(), f.look()
	if same(seen, last.seen) {
		return last.secret
	}
	next := &held{last.secret, seen}
	secret, err := f.read()
	if err == nil {
		next.secret = secret
	}
	// Another caller may have been quicker; then it has told what there is to tell.
	if f.current.CompareAndSwap(last, next) && err != nil {
		f.warn(fmt.Errorf("the changed file cannot be used, going on with the last secret: %w", err))
	}
	return next.secret
}

func (f *File) read() (Secret, error) {
	secret, err := ReadFile(f.path)
	if err != nil {
		return Secret{}, err
	}
	if err := f.check(secret); err != nil {
		return Secret{}, fmt.Errorf("%s: %w", f.path, err)
	}
	return secret, nil
}

// look comes before reading, so that a change in between is seen the next time.
func (f *File) look() fs.FileInfo {
	info, err := os.Lstat(f.path)
	if err != nil {
		return nil
	}
	return info
}

// same reports whether a file is what it was: neither replaced, written nor given other permissions since.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}
