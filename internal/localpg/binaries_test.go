//go:build unix

package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeInstallation returns a folder whose postgres only says its version. No test that runs beside this one may start a process while one of
// them is open for writing: that process would have it open as well until it runs its own program, and nobody could run ours ("text file busy").
func fakeInstallation(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && echo '%s'\n", version)
	for _, program := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	return dir
}

func TestInspect(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		says  string
		major int
		want  binaries
		err   string
	}{
		"debian":        {says: "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", want: binaries{version: "15.18", major: 15}},
		"oldest":        {says: "postgres (PostgreSQL) 14.0", want: binaries{version: "14.0", major: 14}},
		"wanted major":  {says: "postgres (PostgreSQL) 17.5", major: 17, want: binaries{version: "17.5", major: 17}},
		"beta":          {says: "postgres (PostgreSQL) 19beta1", want: binaries{version: "19beta1", major: 19}},
		"too old":       {says: "postgres (PostgreSQL) 13.21", err: "has version 13.21, older than 14"},
		"other major":   {says: "postgres (PostgreSQL) 17.5", major: 15, err: "has version 17.5, not 15"},
		"other program": {says: "hello", err: `postgres --version says "hello"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := fakeInstallation(t, test.says)
			got, err := inspect(t.Context(), account{}, test.major, dir)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), dir) {
					t.Errorf("got error %v, want one that holds %q and the folder", err, test.err)
				}
				return
			}
			test.want.dir = dir
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
	t.Run("client programs only", func(t *testing.T) {
		t.Parallel()
		if _, err := inspect(t.Context(), account{}, 0, t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got error %v, want ErrNotExist", err)
		}
	})
	t.Run("closed to the server's user", func(t *testing.T) {
		t.Parallel()
		dir := fakeInstallation(t, "postgres (PostgreSQL) 17.5")
		if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil { //nolint:gosec // what is tested
			t.Fatal(err)
		}
		acc := account{name: "somebody", uid: 4_000_000, gid: 4_000_000}
		if _, err := inspect(t.Context(), acc, 0, dir); err == nil || !strings.Contains(err.Error(), "may not enter") {
			t.Errorf("got error %v, want that the user may not enter", err)
		}
	})
}

func TestInstalledTakesFirstUsable(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	old := fakeInstallation(t, "postgres (PostgreSQL) 12.1")
	good := fakeInstallation(t, "postgres (PostgreSQL) 16.1")
	newer := fakeInstallation(t, "postgres (PostgreSQL) 18.1")

	got, _ := installed(t.Context(), account{}, 0, []string{empty, old, good, newer})
	if got == nil || got.dir != good {
		t.Errorf("got %+v, want the folder with 16.1", got)
	}
	got, _ = installed(t.Context(), account{}, 18, []string{empty, old, good, newer})
	if got == nil || got.dir != newer {
		t.Errorf("got %+v, want the folder with 18.1", got)
	}
	got, problems := installed(t.Context(), account{}, 0, []string{empty, old})
	if got != nil || len(problems) != 1 {
		t.Errorf("got %+v with problems %v, want none with one problem", got, problems)
	}
}

func TestNoBinariesSaysWhatToDo(t *testing.T) {
	t.Parallel()
	cause := errors.New("no network")
	tests := map[string]struct {
		major int
		want  []string
	}{
		"any":      {0, []string{"Postgres 14 or newer", "PATH", "pg_config", "12.1 is old", "apt-get install postgresql;", "DATABASE_URL"}},
		"the data": {15, []string{"Postgres 15, which made the data", "apt-get install postgresql-15;", "DATABASE_URL"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := noBinaries(test.major, []error{errors.New("12.1 is old")}, cause)
			if !errors.Is(err, cause) {
				t.Errorf("got %v, want it to wrap the download's error", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, version := range []string{"9.6", "14", "18", "17"} {
		if err := os.MkdirAll(filepath.Join(root, "postgresql@"+version, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, dir := range newestFirst(root + "/postgresql*/bin") {
		got = append(got, filepath.Base(filepath.Dir(dir)))
	}
	want := []string{"postgresql@18", "postgresql@17", "postgresql@14", "postgresql@9.6"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}
