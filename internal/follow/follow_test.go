package follow_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorumbox/internal/follow"
)

// text is a file whose content is the value; "bad" is refused.
type text struct {
	t     *testing.T
	path  string
	reads atomic.Int64
	deny  atomic.Bool // refuse whatever it holds

	mu    sync.Mutex
	warns []string
}

func newText(t *testing.T, content string) *text {
	t.Helper()
	f := &text{t: t, path: filepath.Join(t.TempDir(), "file")}
	f.put(content)
	return f
}

// put replaces the file by renaming.
func (f *text) put(content string) {
	f.t.Helper()
	if err := errors.Join(os.WriteFile(f.path+".new", []byte(content), 0o600), os.Rename(f.path+".new", f.path)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *text) read() (string, error) {
	f.reads.Add(1)
	raw, err := os.ReadFile(f.path)
	if err == nil && (string(raw) == "bad" || f.deny.Load()) {
		err = errors.New("it is bad")
	}
	return string(raw), err
}

func (f *text) warn(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.warns = append(f.warns, err.Error())
}

func TestFilesAreFollowed(t *testing.T) {
	t.Parallel()
	f := newText(t, "one")
	files, err := follow.New(f.read, f.warn, f.path)
	if err != nil {
		t.Fatal(err)
	}
	want := func(when, want string, warnings int) {
		t.Helper()
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if got := files.Get(); got != want {
					t.Errorf("%s: got %q, want %q", when, got, want)
				}
			})
		}
		calls.Wait()
		if len(f.warns) != warnings {
			t.Errorf("%s: got %d warnings, want %d: %q", when, len(f.warns), warnings, f.warns)
		}
	}
	want("at the start", "one", 0)
	if got := f.reads.Load(); got != 1 {
		t.Errorf("read %d times without a change, want once", got)
	}
	f.put("two")
	want("replaced", "two", 0)
	f.put("bad")
	want("replaced by a bad one", "two", 1)
	f.put("bad")
	want("replaced by another bad one", "two", 2)
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	want("removed", "two", 3)
	f.put("three")
	want("back", "three", 3)
}

// What made a file unusable need not show at the file: it is tried again, and told once.
func TestFilesThatRecover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newText(t, "one")
		files, err := follow.New(f.read, f.warn, f.path)
		if err != nil {
			t.Fatal(err)
		}
		f.deny.Store(true)
		f.put("two")
		for range 5 {
			if got := files.Get(); got != "one" {
				t.Errorf("got %q, want the last good one", got)
			}
			time.Sleep(time.Second)
		}
		if f.reads.Load() < 4 || len(f.warns) != 1 {
			t.Errorf("read %d times and warned %q, want a look each second and one warning", f.reads.Load(), f.warns)
		}
		f.deny.Store(false)
		if got := files.Get(); got != "two" {
			t.Errorf("got %q, want the new one", got)
		}
	})
}

// Two files belong together: a change of either is seen.
func TestSeveralFiles(t *testing.T) {
	t.Parallel()
	a, b := newText(t, "1"), newText(t, "2")
	files, err := follow.New(func() (string, error) {
		first, errA := a.read()
		second, errB := b.read()
		return first + second, errors.Join(errA, errB)
	}, a.warn, a.path, b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.put("3")
	if got := files.Get(); got != "13" {
		t.Errorf("got %q, want 13", got)
	}
}

func TestNewRefusesBadFiles(t *testing.T) {
	t.Parallel()
	f := newText(t, "bad")
	if files, err := follow.New(f.read, f.warn, f.path); files != nil || err == nil || len(f.warns) != 0 {
		t.Errorf("got %v, %v, warnings %q, want the error alone", files, err, f.warns)
	}
}
