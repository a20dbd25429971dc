package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// buildTimeout bounds the build of the image and the start of the project: some four minutes on two cores when nothing is cached, and
	// what the downloads take.
	buildTimeout = 15 * time.Minute

	// startTimeout bounds the start until everything is healthy.
	startTimeout = 4 * time.Minute

	// commandTimeout bounds any other command.
	commandTimeout = time.Minute
)

// composition is a running project of docker-compose.yml.
type composition struct {
	project string
	env     []string
	files   []string          // that are laid over docker-compose.yml
	image   string            // empty: quorumbox:test
	ports   map[string]string // by the name in the variable, where they are to stay the same; of the others any free one
	group   int               // of the processes that the commands run in
	secrets map[string]string // by name
	client  *http.Client
	pool    *pgxpool.Pool
	written int    // memories
	gone    []byte // logs of containers that were removed
}

// requireDocker skips the test where no Docker engine with the Compose plugin answers; where the variable CI is "true", it fails. It also skips where .ci/run says that it has run
// the tests of the compose project before, in a step of their own.
func requireDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("COMPOSE_TESTED") == "true" {
		t.Skip("the compose project was tested before, by the same run of .ci/run (COMPOSE_TESTED)")
	}
	requireCommand(t, "start a Docker engine", "info")
	requireCompose(t)
}

// requireCompose is that for the Compose plugin alone.
func requireCompose(t *testing.T) {
	t.Helper()
	requireCommand(t, "install Docker with the Compose plugin", "compose", "version")
}

func requireCommand(t *testing.T, remedy string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput() //nolint:gosec // one of the two above
	if err == nil {
		return
	}
	text := fmt.Sprintf("SKIPPED, NOT TESTED: `docker %s`: %v: %s\n%s", strings.Join(args, " "), err, remedy, out)
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// arguments of a command about the project: nothing but the file and c.env decides what it is.
func (c *composition) arguments(args ...string) []string {
	common := []string{"compose", "--project-name", c.project, "--env-file", os.DevNull, "--ansi", "never", "--progress", "plain"}
	for _, file := range append([]string{"docker-compose.yml"}, c.files...) {
		common = append(common, "--file", file)
	}
	return slices.Concat(common, args)
}

// compose runs a command of Compose and returns what it printed on its standard output, without blanks around it.
func (c *composition) compose(t *testing.T, args ...string) string {
	t.Helper()
	return c.composeWithin(t, commandTimeout, args...)
}

func (c *composition) composeWithin(t *testing.T, within time.Duration, args ...string) string {
	t.Helper()
	return c.within(t, within, c.arguments(args...)...)
}

// docker runs a command of the engine, and returns the same.
func (c *composition) docker(t *testing.T, args ...string) string {
	t.Helper()
	return c.within(t, commandTimeout, args...)
}

func (c *composition) within(t *testing.T, within time.Duration, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	out, err := c.run(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *composition) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // the tests' own arguments
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "..", c.env, &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: c.group}
	cmd.WaitDelay = 5 * time.Second // for plugins that go on
	if err := cmd.Run(); err != nil {
		return strings.TrimSpace(stdout.String()),
			fmt.Errorf("`docker %s`: %w\n%s", strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), tail(stderr.Bytes()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// outputOf is what a command prints on both outputs.
func (c *composition) outputOf(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // the tests' own arguments
	cmd.Env, cmd.SysProcAttr, cmd.WaitDelay = c.env, &syscall.SysProcAttr{Setpgid: true, Pgid: c.group}, 5*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("`docker %s`: %w\n%s", strings.Join(args, " "), err, tail(out))
	}
	return string(out), err
}

// tail is the end of a long output.
func tail(out []byte) []byte {
	const most = 4 << 10
	return out[max(0, len(out)-most):]
}

// removeAtEnd has a shell remove the project when the pipe to it closes, which happens at the end of the test, or else when this process ends
// in whatever way, even amid a command, which is ended first. If the test has failed, the state of the project is printed before.
func (c *composition) removeAtEnd(t *testing.T) {
	t.Helper()
	// The output is kept until the end: when nobody reads it any more, a write would be the end of docker.
	const script = `cat >/dev/null; trap "" TERM; kill -TERM 0; sleep 1; out=$(docker "$@" 2>&1) || { echo "$out"; exit 1; }`
	args := append([]string{"-c", script, "remove"},
		c.arguments("down", "--volumes", "--remove-orphans", "--timeout", "5")...)
	remove := exec.CommandContext(context.WithoutCancel(t.Context()), "/bin/sh", args...) //nolint:gosec // our own arguments
	var out bytes.Buffer
	remove.Dir, remove.Env, remove.Stdout, remove.Stderr = "..", c.env, &out, &out
	remove.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // which also keeps Ctrl-C away
	stdin, err := remove.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := remove.Start(); err != nil {
		t.Fatal(err)
	}
	c.group = remove.Process.Pid
	t.Cleanup(func() {
		if t.Failed() {
			c.logState(t)
		}
		if err := stdin.Close(); err != nil {
			t.Error(err)
		}
		if err := remove.Wait(); err != nil {
			t.Errorf("remove the project: %v\n%s", err, out.Bytes())
		}
	})
}

// logState prints what a person wants to see when a test has failed.
func (c *composition) logState(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
	defer cancel()
	for _, args := range [][]string{{"ps", "--all"}, {"logs", "--no-color", "--tail", "25"}} {
		out, err := c.run(ctx, c.arguments(args...)...)
		t.Logf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// containers are the ids of a service's containers.
func (c *composition) containers(t *testing.T, service string) []string {
	t.Helper()
	return strings.Fields(c.compose(t, "ps", "--all", "--quiet", service))
}

// address is where a service's port is published now.
func (c *composition) address(t *testing.T, service, port string) string {
	t.Helper()
	return c.compose(t, "port", service, port)
}
