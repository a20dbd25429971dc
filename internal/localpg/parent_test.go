//go:build unix

package localpg_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"quorumbox/internal/localpg"
)

// parentVariable makes this test binary a parent: it starts a server in the folder that the variable names ("temporary":
// in one of its own), says so, and waits to be killed.
const parentVariable = "LOCALPG_TEST_PARENT"

func TestMain(m *testing.M) {
	dir, isParent := os.LookupEnv(parentVariable)
	if isParent {
		if err := beParent(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func beParent(dir string) error {
	if dir == "temporary" {
		dir = ""
	}
	server, err := localpg.Start(context.Background(), localpg.Options{Dir: dir, Durability: localpg.NoSync})
	if err != nil {
		return err
	}
	fmt.Printf("%d %s\n", server.Pid(), server.Dir())
	_, err = os.Stdin.Read(make([]byte, 1)) // the other end stays open
	return err
}

func TestServerDiesWithKilledParent(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		kept bool
	}{
		"temporary": {kept: false},
		"kept":      {kept: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := "temporary"
			if test.kept {
				dir = reachable(t)
			}
			pid, folder := startAndKillParent(t, dir)
			if test.kept {
				// Start waits for the dying server, and the data is usable.
				start(t, localpg.Options{Dir: dir, Durability: localpg.NoSync})
			} else {
				t.Cleanup(func() { _ = os.RemoveAll(folder) }) // a later Start would sweep it when it is old enough
			}
			waitGone(t, pid)
		})
	}
}

// startAndKillParent returns the server's pid and folder.
func startAndKillParent(t *testing.T, dir string) (int, string) {
	t.Helper()
	parent := osexec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test binary
	parent.Env = append(os.Environ(), parentVariable+"="+dir)
	parent.Stderr = t.Output()
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	killErr := parent.Process.Kill()
	_ = parent.Wait() // it was killed
	if readErr != nil || killErr != nil {
		t.Fatalf("read from the parent: %v; kill it: %v", readErr, killErr)
	}
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		t.Fatalf("parent says %q: %v", line, err)
	}
	_, folder, _ := strings.Cut(strings.TrimSpace(line), " ")
	return pid, folder
}
