//go:build unix

package bench

import (
	"path/filepath"
	"strings"
	"testing"
)

func shell(t *testing.T, script string) spawn {
	t.Helper()
	return spawn{program: "/bin/sh", args: []string{"-c", script}, log: filepath.Join(t.TempDir(), "log")}
}

func TestProcessFirstLineAndStop(t *testing.T) {
	t.Parallel()
	p, line, err := shell(t, "echo hello; echo more; exec sleep 600").startWithLine(t.Context(), "child")
	if err != nil {
		t.Fatal(err)
	}
	if line != "hello" {
		t.Errorf("first line: got %q, want hello", line)
	}
	if err := p.alive(); err != nil {
		t.Errorf("got %v, want a living child", err)
	}
	p.stop(t.Context())
	if err := p.alive(); err == nil {
		t.Error("got a living child after stop")
	}
	p.stop(t.Context()) // does nothing
}

func TestProcessThatEndsSaysWhy(t *testing.T) {
	t.Parallel()
	_, _, err := shell(t, "echo it is broken >&2; exit 3").startWithLine(t.Context(), "child")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("got %v, want exit status and log", err)
	}
}

func TestProcessDoesNotInheritSettings(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://elsewhere")
	t.Setenv("QUORUMBOX_SENDER_ID", "somebody")
	p, line, err := shell(t, `echo "[$DATABASE_URL$QUORUMBOX_SENDER_ID]"; exec sleep 600`).startWithLine(t.Context(), "child")
	if err != nil {
		t.Fatal(err)
	}
	p.stop(t.Context())
	if line != "[]" {
		t.Errorf("got %q, want neither setting", line)
	}
}

func TestProcessOfNoProgram(t *testing.T) {
	t.Parallel()
	s := shell(t, "")
	s.program = "/nonexistent/worker"
	if _, err := s.start("child"); err == nil {
		t.Error("got no error for a program that does not exist")
	}
}
