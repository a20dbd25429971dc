//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldestMajor is the oldest version of Postgres that the program supports.
const oldestMajor = 14

// binaries are the programs of one installation.
type binaries struct {
	dir     string
	version string // such as "17.5"
	major   int
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// findBinaries returns the first installation that the account can run, and downloads one where there is none. A major
// version other than 0 is required, as data can be read only by the version that made it.
func findBinaries(ctx context.Context, acc account, major int, logger *slog.Logger) (binaries, error) {
	found, problems := installed(ctx, acc, major, candidateDirs(ctx))
	if found != nil {
		return *found, nil
	}
	if ctx.Err() != nil {
		return binaries{}, context.Cause(ctx)
	}
	dir, err := download(ctx, acc, major, logger)
	if err == nil {
		var bin binaries
		bin, err = inspect(ctx, acc, major, dir)
		if err == nil {
			return bin, nil
		}
	}
	return binaries{}, noBinaries(major, problems, err)
}

// noBinaries says what was looked for and what to do.
func noBinaries(major int, problems []error, downloadErr error) error {
	wanted := fmt.Sprintf("Postgres %d or newer", oldestMajor)
	pkg := "postgresql"
	if major != 0 {
		wanted, pkg = fmt.Sprintf("Postgres %d, which made the data,", major), fmt.Sprintf("postgresql-%d", major)
	}
	return fmt.Errorf("%s was found neither on PATH nor with pg_config nor in the folders of Debian, Red Hat and Homebrew%s, "+
		"and could not be downloaded (%w): install it (Debian: apt-get install %s; macOS: brew install postgresql@17) "+
		"or set DATABASE_URL to a server of your own", wanted, describe(problems), downloadErr, pkg)
}

// installed returns the first usable installation, or why none of those that exist is.
func installed(ctx context.Context, acc account, major int, dirs []string) (*binaries, []error) {
	var problems []error
	for _, dir := range dirs {
		bin, err := inspect(ctx, acc, major, dir)
		if err == nil {
			return &bin, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return nil, problems
}

func describe(problems []error) string {
	if len(problems) == 0 {
		return ""
	}
	texts := make([]string, len(problems))
	for i, problem := range problems {
		texts[i] = problem.Error()
	}
	return " (" + strings.Join(texts, "; ") + ")"
}

// candidateDirs lists folders that may hold the binaries, the user's own choice first, then newer versions before older.
func candidateDirs(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// Distributions put links on PATH; initdb stands beside the real program.
		if program, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(program))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",         // Debian
		"/usr/pgsql-*/bin",                  // Red Hat, packages of the Postgres project
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew, Apple silicon
		"/usr/local/opt/postgresql*/bin",    // Homebrew, Intel
		"/usr/libexec/postgresql*",          // Alpine
		"/usr/local/pgsql/bin",              // built from source
	} {
		dirs = append(dirs, newestFirst(pattern)...)
	}
	return dirs
}

// newestFirst lists the folders of a pattern by the last number in their path, largest first.
func newestFirst(pattern string) []string {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	version := regexp.MustCompile(`(\d+)[\d.]*\D*$`)
	number := func(dir string) int {
		match := version.FindStringSubmatch(dir)
		if match == nil {
			return 0
		}
		n, _ := strconv.Atoi(match[1]) // too long for a version: sorts last
		return n
	}
	slices.SortStableFunc(dirs, func(a, b string) int { return number(b) - number(a) })
	return dirs
}

// inspect checks one folder. The error is os.ErrNotExist where the folder holds no server.
func inspect(ctx context.Context, acc account, major int, dir string) (binaries, error) {
	bin := binaries{dir: dir}
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(bin.path(program)); err != nil {
			return binaries{}, err
		}
	}
	if err := acc.reach(bin.path("postgres")); err != nil {
		return binaries{}, fmt.Errorf("%s: %w", dir, err)
	}
	cmd := exec.CommandContext(ctx, bin.path("postgres"), "--version") //nolint:gosec // a program of the found installation
	cmd.Env = programEnv()
	out, err := cmd.Output()
	if err != nil {
		return binaries{}, fmt.Errorf("%s: postgres --version: %w", dir, err)
	}
	match := regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`).FindStringSubmatch(string(out))
	if match == nil {
		return binaries{}, fmt.Errorf("%s: postgres --version says %q", dir, strings.TrimSpace(string(out)))
	}
	bin.version = match[1]
	bin.major, err = strconv.Atoi(match[2])
	switch {
	case err != nil:
		return binaries{}, fmt.Errorf("%s: version %s: %w", dir, match[1], err)
	case bin.major < oldestMajor:
		return binaries{}, fmt.Errorf("%s has version %s, older than %d", dir, bin.version, oldestMajor)
	case major != 0 && bin.major != major:
		return binaries{}, fmt.Errorf("%s has version %s, not %d", dir, bin.version, major)
	}
	return bin, nil
}
