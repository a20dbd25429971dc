// Package follow keeps what was read from files as new as the files are, without a restart and without a watcher.
package follow

import (
	"io/fs"
	"os"
	"sync/atomic"
	"time"
)

// againAfter is how long after files could not be used they are read again although they look the same: what was wrong may have been
// the folder, or the owner.
const againAfter = time.Second

// Files is a value that is read from files and follows them. Make one with [New]. It is safe for concurrent use and starts no goroutine.
type Files[T any] struct {
	paths []string
	read  func() (T, error)
	warn  func(error)
	held  atomic.Pointer[held[T]]
}

// held never changes.
type held[T any] struct {
	value T
	seen  []fs.FileInfo // the files when they were tried last, whether or not value is from them
	fault string        // why they could not be used then
	tried time.Time
}

// New returns what read makes of the files at paths, or its error: what is bad at the start is refused. Afterwards warn is told, once for each
// change, when files that changed cannot be used; it must be safe for concurrent use, and so must read.
func New[T any](read func() (T, error), warn func(error), paths ...string) (*Files[T], error) {
	f := &Files[T]{paths: paths, read: read, warn: warn}
	seen := f.look()
	value, err := read()
	if err != nil {
		return nil, err
	}
	f.held.Store(&held[T]{value: value, seen: seen})
	return f, nil
}

// Get returns what the files hold now. It looks at them (one stat each) and reads them if they changed since the last call. While they cannot be
// used, because they are bad or only half of them has been replaced, it goes on with the last ones that could.
func (f *Files[T]) Get() T {
	last, seen := f.held.Load(), f.look()
	changed := !same(seen, last.seen)
	if !changed && (last.fault == "" || time.Since(last.tried) < againAfter) {
		return last.value
	}
	next := &held[T]{value: last.value, seen: seen, tried: time.Now()}
	value, err := f.read()
	if err == nil {
		next.value = value
	} else {
		next.fault = err.Error()
	}
	// Another caller may have been quicker; then it has told what there is to tell.
	if f.held.CompareAndSwap(last, next) && err != nil && (changed || next.fault != last.fault) {
		f.warn(err)
	}
	return next.value
}

// look returns how the files are now, nil for one that is not there. It comes before reading, so that a change in between is seen
// the next time.
func (f *Files[T]) look() []fs.FileInfo {
	seen := make([]fs.FileInfo, len(f.paths))
	for i, path := range f.paths {
		if info, err := os.Stat(path); err == nil {
			seen[i] = info
		}
	}
	return seen
}

// same reports whether all files are what they were: neither replaced nor written nor given other permissions since.
func same(a, b []fs.FileInfo) bool {
	for i := range a {
		if a[i] == nil || b[i] == nil {
			if a[i] != nil || b[i] != nil {
				return false
			}
			continue
		}
		if !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() || a[i].Mode() != b[i].Mode() {
			return false
		}
	}
	return true
}
