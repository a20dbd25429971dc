//go:build unix

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// programs builds the worker's program once for all tests: the children are the real ones.
type programs struct {
	once sync.Once
	dir  string
	path string
	err  error
}

var built programs //nolint:gochecknoglobals // tests reach TestMain, which removes it, by no parameter

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.err = built.build(context.WithoutCancel(t.Context())) })
	if built.err != nil {
		t.Fatalf("build the program: %v", built.err)
	}
	return built.path
}

func (p *programs) build(ctx context.Context) (err error) {
	if p.dir, err = os.MkdirTemp("", "quorumbox-bench-test-"); err != nil {
		return err
	}
	p.path = filepath.Join(p.dir, "worker")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", p.path, "quorumbox/cmd/worker") //nolint:gosec // a path of this test's own
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
