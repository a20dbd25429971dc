package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quorumbox/internal/pgtest"
)

// demoPatience is above what a whole demo takes on a busy machine.
const demoPatience = 2 * time.Minute

// TestDemo runs the program as a user does, as a process with children of its own: a demo kills and is killed.
func TestDemo(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("looks for processes in /proc")
	}
	pgtest.EmptyURL(t) // skips where there is no server; the demos make databases of their own
	program := filepath.Join(t.TempDir(), "worker")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".") //nolint:gosec // this very package
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}

	t.Run("once", func(t *testing.T) {
		t.Parallel()
		d := startDemo(t, program, "--once", "--json", "--pace", "0s", "--file", memoriesFile(t, 45))
		if err := d.wait(t); err != nil {
			t.Fatalf("got %v, want success\n%s", err, &d.stderr)
		}
		var got struct {
			Equal  bool           `json:"equal"`
			Store  int            `json:"store_rows"`
			Met    int            `json:"met"`
			NotMet map[string]int `json:"not_met"`
			Peers  []struct {
				Equal      int `json:"equal"`
				ByProtocol int `json:"by_protocol"`
			} `json:"peers"`
			Import struct {
				Inserted int `json:"inserted"`
				Bad      int `json:"bad"`
			} `json:"import"`
		}
		if err := json.Unmarshal(d.stdout.Bytes(), &got); err != nil {
			t.Fatalf("standard output is no JSON: %v\n%s", err, &d.stdout)
		}
		if !got.Equal || got.Store != 44 || got.Import.Inserted != 45 || got.Import.Bad != 0 || len(got.Peers) != 3 {
			t.Errorf("got %s, want 45 imported memories, 44 left, and 3 equal peers", &d.stdout)
		}
		verdicts := got.Met
		for _, n := range got.NotMet {
			verdicts += n
		}
		if want := 45 + 3; verdicts != want {
			t.Errorf("got %d verdicts, want %d: %s", verdicts, want, &d.stdout)
		}
		for _, event := range []string{"SIGKILL", "update", "delete", "rename", "restart", "in step", "All 3 peers equal the store"} {
			if !strings.Contains(d.stderr.String(), event) {
				t.Errorf("no %q in the events:\n%s", event, &d.stderr)
			}
		}
		d.leavesNothing(t)
	})

	t.Run("a file with bad lines", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "m.jsonl")
		text := memoryLine(1) + "\nno JSON\n" + memoryLine(2) + "\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := startDemo(t, program, "--once", "--pace", "0s", "--file", path)
		if err := d.wait(t); err != nil {
			t.Fatalf("got %v, want success: the peers equal the store\n%s", err, &d.stderr)
		}
		for _, want := range []string{"bad line", "line 2", "bad lines 1", "left out: they need 3", "store: 2 memories"} {
			if !strings.Contains(d.stdout.String(), want) {
				t.Errorf("no %q in\n%s", want, &d.stdout)
			}
		}
		d.leavesNothing(t)
	})

	// A user may lose patience at any moment.
	for _, moment := range []string{"database", "peers", "worker", "import", "SIGKILL", "Still running"} {
		t.Run("interrupted at "+moment, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, program, "--pace", "2s", "--file", memoriesFile(t, 30))
			d.awaitOutput(t, moment)
			if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			err := d.wait(t)
			if moment == "Still running" {
				if err != nil {
					t.Errorf("got %v, want success: all was shown\n%s", err, &d.stderr)
				}
			} else if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFailed {
				t.Errorf("got %v, want exit code %d\n%s", err, exitFailed, &d.stderr)
			}
			d.leavesNothing(t)
		})
	}

	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		d := startDemo(t, program, "--pace", "2s", "--file", memoriesFile(t, 30))
		d.awaitOutput(t, "SIGKILL")
		if err := d.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = d.wait(t) // it was killed
		d.awaitNoProcess(t)
	})
}

func TestDemoRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"an argument":     {[]string{"demo", "file"}, exitUsage, "demo --help"},
		"a negative pace": {[]string{"demo", "--pace", "-1s"}, exitFailed, "want 0"},
		"no such file":    {[]string{"demo", "--file", "/does/not/exist"}, exitFailed, "open the memories"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), test.args, strings.NewReader(""), &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, &stderr, test.code, test.want)
			}
		})
	}
}

// demoRun is a demo in a process of its own, with a folder of its own for temporary files.
type demoRun struct {
	cmd            *exec.Cmd
	dir            string
	stdout, stderr safeBuffer
}

func startDemo(t *testing.T, program string, args ...string) *demoRun {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo-test-") //nolint:usetesting // where root runs the tests, another user runs Postgres and has to get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	d := &demoRun{dir: dir}
	d.cmd = exec.CommandContext(t.Context(), program, append([]string{"demo"}, args...)...) //nolint:gosec // built above
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DATABASE_URL=") && !strings.HasPrefix(v, "QUORUMBOX_") {
			d.cmd.Env = append(d.cmd.Env, v)
		}
	}
	d.cmd.Env = append(d.cmd.Env, "TMPDIR="+dir)
	if url := os.Getenv(pgtest.ServerVariable); url != "" {
		d.cmd.Env = append(d.cmd.Env, "DATABASE_URL="+url)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() }) // lost on one that has ended
	return d
}

// wait returns how the process ended.
func (d *demoRun) wait(t *testing.T) error {
	t.Helper()
	timer := time.AfterFunc(demoPatience, func() { _ = d.cmd.Process.Signal(syscall.SIGQUIT) }) // it prints its goroutines
	defer timer.Stop()
	return d.cmd.Wait()
}

func (d *demoRun) awaitOutput(t *testing.T, text string) {
	t.Helper()
	d.poll(t, fmt.Sprintf("the output %q", text), func() bool { return strings.Contains(d.stdout.String(), text) })
}

// leavesNothing checks that no file and no process is left.
func (d *demoRun) leavesNothing(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("%s is left", entry.Name())
	}
	if lines := d.processes(t); len(lines) > 0 {
		t.Errorf("processes are left:\n%s", strings.Join(lines, "\n"))
	}
}

func (d *demoRun) awaitNoProcess(t *testing.T) {
	t.Helper()
	d.poll(t, "all processes to end", func() bool { return len(d.processes(t)) == 0 })
}

// processes are the command lines of the running processes that name the demo's folder, as those of its server and its peers do.
func (d *demoRun) processes(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // of the kernel
		if err == nil && bytes.Contains(text, []byte(d.dir)) {
			found = append(found, string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func (d *demoRun) poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(demoPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited %s for %s; output:\n%s%s\nprocesses: %q", demoPatience, what, &d.stdout, &d.stderr, d.processes(t))
		}
	}
}

func memoriesFile(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	for i := range n {
		b.WriteString(memoryLine(i) + "\n")
	}
	path := filepath.Join(t.TempDir(), "memories.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func memoryLine(i int) string {
	return fmt.Sprintf(`{"id":"m-%03d","tier":"long","namespace":"n/%d","title":"Title %d","content":"Content %d","tags":["a"],`+
		`"source":"import","metadata":{"scope":"collective","n":%d}}`, i, i%7, i, i, i)
}

// safeBuffer is a buffer that a process writes while a test reads.
type safeBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *safeBuffer) Bytes() []byte { return []byte(b.String()) }
