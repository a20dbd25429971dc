package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"quorumbox/internal/pgtest"
	"quorumbox/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m, pgtest.Migrated(), pgtest.WithLeakCheck()) }

// migrate is for servers that are not pgtest's.
func migrate(ctx context.Context, url string) error {
	_, err := migrations.Up(ctx, url)
	return err
}

// program is the built binary and the group that its processes run in.
type program struct {
	path  string
	group int
}

// One build for all tests of the run.
var built = sync.OnceValues(build) //nolint:gochecknoglobals // see above

func build() (program, error) {
	dir, err := os.MkdirTemp("", "quorumbox-integration-")
	if err != nil {
		return program{}, err
	}
	group, err := guard(dir)
	if err != nil {
		return program{}, errors.Join(err, os.RemoveAll(dir))
	}
	path := filepath.Join(dir, "worker")
	cmd := exec.Command("go", "build", "-race=false", "-tags", "faults", "-o", path, "quorumbox/cmd/worker") //nolint:gosec,noctx // fixed but for our own folder; as long as it takes
	if out, err := cmd.CombinedOutput(); err != nil {
		return program{}, fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return program{path: path, group: group}, nil
}

// guard starts a shell that outlives the test binary by a moment, however that ends: when the pipe between them closes, it removes dir and
// kills every process of its group, which is returned.
func guard(dir string) (group int, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/bin/sh", "-c", `cat >/dev/null; rm -rf -- "$1"; kill -9 0`, "guard", dir) //nolint:gosec,noctx // our own folder; it ends with this process
	cmd.Stdin = read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, errors.Join(err, read.Close(), write.Close())
	}
	keepOpen(write)
	return cmd.Process.Pid, read.Close()
}

// keepOpen keeps the garbage collector from closing the file before the process ends.
func keepOpen(file *os.File) {
	held = append(held, file)
}

var held []*os.File //nolint:gochecknoglobals // lives as long as the process, which is its purpose
