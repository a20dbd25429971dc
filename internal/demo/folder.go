package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// folderPrefix begins the name of every demo's folder.
	folderPrefix = "quorumbox-demo-"
	lockName     = "lock"

	// staleAge keeps the sweep away from a folder whose owner has not locked it yet.
	staleAge = 10 * time.Minute
)

// folder is the demo's temporary folder, locked while the demo lives.
type folder struct {
	path string
	lock *os.File
}

// makeDir makes the folder, and removes those of demos that were killed.
func makeDir(ctx context.Context) (*folder, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	sweepFolders(os.TempDir(), time.Now())
	path, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	f := &folder{path: path}
	if f.lock, err = lockFile(filepath.Join(path, lockName), os.O_CREATE); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.remove())
	}
	return f, nil
}

func (f *folder) remove() error {
	err := os.RemoveAll(f.path)
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}

// lockFile opens and locks a file. The lock ends with this process.
func lockFile(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|flag, 0o600) //nolint:gosec // in the demo's own folder
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// sweepFolders removes old folders that nobody has locked. What cannot be removed, such as another user's, stays.
func sweepFolders(base string, now time.Time) {
	paths, err := filepath.Glob(filepath.Join(base, folderPrefix+"*"))
	if err != nil {
		return // a pattern that the name of the base has spoilt
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || now.Sub(info.ModTime()) < staleAge {
			continue
		}
		lock, err := lockFile(filepath.Join(path, lockName), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_ = os.RemoveAll(path) // the next demo tries again
		if lock != nil {
			_ = lock.Close() // only read
		}
	}
}
