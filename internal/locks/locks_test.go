package locks_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"quorumbox/internal/locks"
)

func TestNoTwoAreTheSame(t *testing.T) {
	t.Parallel()
	one := map[int64]bool{locks.Migrate: true, locks.Relay: true, locks.Sweep: true, locks.Prune: true, locks.Verify: true}
	two := map[int32]bool{locks.Lane: true, locks.Namespace: true, locks.Probe: true}
	if len(one) != 5 || len(two) != 3 {
		t.Errorf("got %d and %d different numbers, want 5 and 3", len(one), len(two))
	}
}

// The numbers that SQL has are ours: it cannot use the names.
func TestSQLTakesOurs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("got files %v, error %v", files, err)
	}
	literal := regexp.MustCompile(`pg_(?:try_)?advisory_\w*lock\w*\(\s*(\d+)`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // of this repository
		if err != nil {
			t.Fatal(err)
		}
		calls := bytes.Count(text, []byte("advisory_"))
		matches := literal.FindAllSubmatch(text, -1)
		if len(matches) != calls {
			t.Errorf("%s: %d of %d calls have a number that can be read", file, len(matches), calls)
		}
		for _, m := range matches {
			found++
			if got := string(m[1]); got != strconv.Itoa(int(locks.Namespace)) {
				t.Errorf("%s takes the lock %s, want %d", file, got, locks.Namespace)
			}
		}
	}
	if found == 0 {
		t.Error("no migration takes a lock: this test looks for the wrong thing")
	}
}
