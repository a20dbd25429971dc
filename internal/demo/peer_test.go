package demo

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func testPeer(t *testing.T) *peerProcess {
	t.Helper()
	dir := t.TempDir()
	p := &peerProcess{
		id: "peer-a", executable: os.Args[0], dir: filepath.Join(dir, "data"), keys: filepath.Join(dir, "keys"),
		logPath: filepath.Join(dir, "peer.log"),
	}
	if err := os.Mkdir(p.keys, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(context.WithoutCancel(t.Context()))
	})
	return p
}

func TestPeerIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	p := testPeer(t)
	if err := p.startOnFreePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, addr := p.pid(), p.addr
	p.kill()
	err := p.run.Load().Err()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("got %v, want a process that SIGKILL ended", err)
	}
	if p.pid() != 0 || p.answers(t.Context()) {
		t.Error("the killed peer still answers")
	}
	p.kill() // does nothing
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.pid() == first || p.addr != addr || !p.answers(t.Context()) {
		t.Errorf("got process %d at %s, want another one at %s", p.pid(), p.addr, addr)
	}
	p.stop(t.Context())
	if p.pid() != 0 {
		t.Error("the stopped peer has a process")
	}
}

func TestPeerThatCannotStart(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spoil func(*testing.T, *peerProcess)
		want  string
	}{
		"ends at once": {
			spoil: func(t *testing.T, p *peerProcess) {
				t.Helper()
				if err := os.WriteFile(p.dir, []byte("in the way"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			want: "its log ends: make data folder",
		},
		"no program": {
			spoil: func(t *testing.T, p *peerProcess) {
				t.Helper()
				p.executable = filepath.Join(t.TempDir(), "missing")
			},
			want: "no such file",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testPeer(t)
			test.spoil(t, p)
			err := p.startOnFreePort(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "start peer-a") {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			if p.pid() != 0 {
				t.Error("a process is left")
			}
		})
	}
}

func TestPeerStartEndsWithContext(t *testing.T) {
	t.Parallel()
	p := testPeer(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	p.addr = "127.0.0.1:0" // nobody can find it there
	if err := p.start(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
	if p.pid() != 0 {
		t.Error("a process is left")
	}
}

// A peer is none of those who may know the database.
func TestPeerEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://secret@host/db")
	t.Setenv("QUORUMBOX_DATABASE__URL", "postgres://secret@host/db")
	t.Setenv("PGPASSWORD", "secret")
	t.Setenv("KEPT", "yes")
	all := strings.Join(peerEnv(), "\n")
	if strings.Contains(all, "secret") || !strings.Contains(all, "KEPT=yes") {
		t.Errorf("got %s", all)
	}
}
