//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	// temporaryPrefix begins the name of every temporary folder.
	temporaryPrefix = "quorumbox-pg-"
	// sharedMemory is where Linux keeps shared memory: a file system in memory, which containers often get very small.
	sharedMemory = "/dev/shm"
	// roomyMemory is the free space there, in bytes, from which it is used.
	roomyMemory = 4 << 30

	// staleAge keeps the sweep away from a folder whose owner has not locked it yet.
	staleAge = 10 * time.Minute
)

// makeTemporary creates a folder for one run in the first place that the account can reach.
func makeTemporary(acc account, bases []string) (string, error) {
	var problems []error
	for _, base := range bases {
		if err := acc.reach(filepath.Join(base, "x")); err != nil {
			problems = append(problems, err)
			continue
		}
		path, err := os.MkdirTemp(base, temporaryPrefix)
		if err == nil {
			return path, nil
		}
		problems = append(problems, err)
	}
	return "", fmt.Errorf("make a temporary folder: %w", errors.Join(problems...))
}

// temporaryBases are the places for a temporary folder, best first. Data that need not survive the machine goes to memory
// where there is room: a copy of a database is some 300 files, which some file systems take half a second to create.
func temporaryBases(durability Durability) []string {
	bases := []string{os.TempDir()}
	if durability == NoSync && isRoomyMemory(sharedMemory) {
		bases = []string{sharedMemory, os.TempDir()}
	}
	for _, base := range []string{"/tmp", "/var/tmp"} {
		if !slices.Contains(bases, base) {
			bases = append(bases, base)
		}
	}
	return bases
}

// sweepTemporary removes temporary folders whose owner was killed before it could.
func sweepTemporary(ctx context.Context, bases []string, logger *slog.Logger) {
	for _, base := range bases {
		paths, err := filepath.Glob(filepath.Join(base, temporaryPrefix+"*"))
		if err != nil {
			continue // a pattern that the name of the base has spoilt
		}
		for _, path := range paths {
			if !isStale(path) {
				continue
			}
			if err := os.RemoveAll(path); err != nil {
				logger.DebugContext(ctx, "stale folder not removed", slog.String("dir", path), slog.Any("error", err))
			}
		}
	}
}

// isStale says whether the folder is an old one that nobody uses. A folder of another user cannot be opened, so it is not.
func isStale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleAge || serverAlive(path) {
		return false
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return false
	}
	defer root.Close()
	lock, err := root.OpenFile(lockName, os.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
