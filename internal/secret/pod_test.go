//go:build unix

package secret_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quorumbox/internal/secret"
)

const podSecret = "QUORUMBOX_TEST_POD_SECRET" //nolint:gosec // G101: the name of a variable

// The volume of a pod, read by a process with the pod's user and fsGroup: real users, where this process may change them.
func TestKubernetesPod(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(podSecret); path != "" {
		got, err := secret.ReadFile(path)
		if err != nil || got.Reveal() != "s3cr3t" {
			t.Fatalf("got %v, %v, want the secret", got, err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a secret as the kubelet does: TestWay judges the same layout with a made-up user")
	}
	const user, fsGroup = 65532, 2000
	// Not below the test's folder, which the other user cannot enter.
	dir, err := os.MkdirTemp("", "quorumbox-pod-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	version := filepath.Join(dir, "..2026_11_30_23_08_48.1234567890")
	key := filepath.Join(version, "api-key")
	check(os.Mkdir(version, 0o755)) //nolint:gosec // G301: as the kubelet does
	check(os.WriteFile(key, []byte("s3cr3t\n"), 0o600))
	for path, mode := range map[string]os.FileMode{
		key: 0o440, version: os.ModeSetgid | 0o755, dir: os.ModeSticky | os.ModeSetgid | 0o777,
	} {
		check(os.Chown(path, 0, fsGroup))
		check(os.Chmod(path, mode))
	}
	check(os.Symlink(filepath.Base(version), filepath.Join(dir, "..data")))
	check(os.Symlink("..data/api-key", filepath.Join(dir, "api-key")))

	// A copy of this program that the other user may run.
	raw, err := os.ReadFile(os.Args[0]) //nolint:gosec // G703: this program
	check(err)
	program := filepath.Join(dir, "program")
	check(os.WriteFile(program, raw, 0o755)) //nolint:gosec // G306: to be run by another user
	run := func(groups ...uint32) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestKubernetesPod$", "-test.v")
		cmd.Dir = "/"
		cmd.Env = []string{podSecret + "=" + filepath.Join(dir, "api-key"), "TMPDIR=/nonexistent"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, Groups: groups}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(fsGroup); err != nil {
		t.Errorf("with the fsGroup: %v\n%s", err, out)
	}
	if out, err := run(); err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("without the fsGroup: got %v, want permission denied\n%s", err, out)
	}
}
