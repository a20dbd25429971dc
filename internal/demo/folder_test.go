package demo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSweepFolders(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	create := func(name string, locked bool, age time.Duration) string {
		t.Helper()
		path := filepath.Join(base, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if locked {
			lock, err := lockFile(filepath.Join(path, lockName), os.O_CREATE)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = lock.Close() })
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := map[string]struct {
		path string
		gone bool
	}{
		"old":             {create(folderPrefix+"old", false, time.Hour), true},
		"old and in use":  {create(folderPrefix+"used", true, time.Hour), false},
		"young":           {create(folderPrefix+"young", false, time.Minute), false},
		"somebody else's": {create("other", false, time.Hour), false},
	}
	sweepFolders(base, time.Now())
	for name, test := range tests {
		if _, err := os.Stat(test.path); errors.Is(err, fs.ErrNotExist) != test.gone {
			t.Errorf("%s: got %v, want gone: %t", name, err, test.gone)
		}
	}
}
