package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/riverqueue/river"

	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// previousRelease is the commit of the release before this one, whose workers and database an upgrade meets. Set it anew when a release is made.
const previousRelease = "4fea914b79cb081a589854409cb507631ce3a41f"

// errNoHistory says that the release before cannot be built, because its source is not here.
var errNoHistory = errors.New("the release before this one is not in the git history here")

// builtPrevious is the program of the release before, built once for all tests of the run.
var builtPrevious = sync.OnceValues(buildPrevious) //nolint:gochecknoglobals // see above

func buildPrevious() (program, error) {
	bin, err := built()
	if err != nil {
		return program{}, err
	}
	source := filepath.Join(filepath.Dir(bin.path), "previous") // removed with the rest
	if err := os.Mkdir(source, 0o700); err != nil {
		return program{}, err
	}
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output() //nolint:noctx // a moment
	if err != nil {
		return program{}, fmt.Errorf("%w: %w", errNoHistory, err)
	}
	archive := exec.Command("git", "-C", strings.TrimSpace(string(root)), "archive", "--format=tar", previousRelease) //nolint:gosec,noctx // a constant, and our own folder
	text, err := archive.Output()
	if err != nil {
		return program{}, fmt.Errorf("%w: %w", errNoHistory, err)
	}
	untar := exec.Command("tar", "-x", "-C", source) //nolint:gosec,noctx // our own folder
	untar.Stdin = bytes.NewReader(text)
	if out, err := untar.CombinedOutput(); err != nil {
		return program{}, fmt.Errorf("unpack the release before: %w\n%s", err, out)
	}
	path := filepath.Join(source, "worker")
	build := exec.Command("go", "build", "-race=false", "-o", path, "./cmd/worker") //nolint:gosec,noctx // as long as it takes
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return program{}, fmt.Errorf("build the release before: %w\n%s", err, out)
	}
	return program{path: path, group: bin.group}, nil
}

// previous is the program of the release before. Without the git history the test is skipped; in CI that is a failure.
func previous(t *testing.T) program {
	t.Helper()
	bin, err := builtPrevious()
	switch {
	case errors.Is(err, errNoHistory) && os.Getenv("CI") != "true":
		t.Skipf("SKIPPED: %v: fetch %s (a clone with depth 1 does not have it)", err, previousRelease)
	case err != nil:
		t.Fatal(err)
	}
	return bin
}

// A fleet of the release before is upgraded under load: its database is migrated while it works, workers of this version come beside it, each kind is killed in turn and
// works alone for a while, on the newer schema too, until only this version is left. Everything arrives, and every verdict is true.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	old := previous(t)
	f := newFleet(t, setup{url: pgtest.EmptyURL(t)})
	with := func(bin program, name string, args ...string) *process {
		t.Helper()
		p := bin.launch(t, name, f.logs, nil, append(args, "--config", f.config)...)
		f.tellState(t)
		return p
	}
	count := 0
	worker := func(bin program, version string) *process {
		t.Helper()
		count++
		w := with(bin, fmt.Sprintf("%s-%d", version, count), "run")
		f.works(t, w, "")
		return w
	}
	did := func(w *process) {
		t.Helper()
		until(t, w.name+" does some of the work", func() []string {
			n := f.count(t, `select count(*) from river_job where kind = 'fan_out' and state = 'completed' and attempted_by[cardinality(attempted_by)] = $1`, w.client())
			return holds(n >= 20, fmt.Sprintf("%d fan-outs", n))
		})
	}
	this, err := built()
	if err != nil {
		t.Fatal(err)
	}

	migrateOld := with(old, "migrate-old", "migrate", "up")
	migrateOld.wait(t, settleTime)
	migrateOld.wantExit(t, 0)
	oldWorker := worker(old, "old")
	l := startLoad(t, 3, f.inserts)
	did(oldWorker)

	migrateNew := with(this, "migrate-new", "migrate", "up")
	migrateNew.wait(t, settleTime)
	migrateNew.wantExit(t, 0)
	t.Logf("migrated under load:\n%s", migrateNew.output())
	f.peers[1].kill(t) // so that both versions leave each other retries
	did(oldWorker)     // on the newer schema

	newWorker := worker(this, "new")
	did(newWorker)
	did(oldWorker)
	oldWorker.kill(t)
	l.reach(t, 150)
	f.peers[1].start(t)

	oldWorker = worker(old, "old") // back to the version before: it starts on the newer schema
	did(oldWorker)
	newWorker.kill(t)
	l.reach(t, 150)
	newWorker = worker(this, "new")
	did(newWorker)
	oldWorker.terminate(t)
	l.reach(t, 150)
	l.stop(t)
	f.converge(t, insertsOnly)

	if lost := f.count(t, `select count(*) from river_job where state = 'discarded'`); lost > 0 {
		t.Errorf("%d jobs were discarded", lost)
	}
	for _, w := range f.workers {
		for _, bad := range []string{`"level":"ERROR"`, "panic", "unknown job kind", "job kind is not registered"} {
			if lines := grep(string(w.output()), bad); lines != "" {
				t.Errorf("%s: %s", w.name, lines)
			}
		}
	}
}

// Kinds of jobs are only added: a worker of this version works those that the release before has left. (What River does with a kind that a worker does not know,
// and so how to add one, is in docs/upgrading.md.)
func TestKindsAreOnlyAdded(t *testing.T) {
	t.Parallel()
	source := filepath.Dir(previous(t).path)
	files, err := filepath.Glob(filepath.Join(source, "jobs", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, args := range []river.JobArgs{jobs.FanOutArgs{}, jobs.PeerRetryArgs{}, jobs.RedeliverArgs{}, jobs.RepairArgs{}, jobs.SnapshotArgs{}} {
		known = append(known, args.Kind())
	}
	before := 0
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // what we unpacked
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\) Kind\(\) string \{ return "([a-z_]+)" \}`).FindAllStringSubmatch(string(text), -1) {
			before++
			if !slices.Contains(known, m[1]) {
				t.Errorf("the release before has jobs of the kind %s, which this one does not work", m[1])
			}
		}
	}
	if before < 5 {
		t.Errorf("C10: found %d kinds in the release before", before)
	}
}
