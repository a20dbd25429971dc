package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"quorumbox/internal/child"
)

const (
	// peerStart bounds how long a peer may take until it answers.
	peerStart = 20 * time.Second

	// peerStop is what a peer gets after SIGTERM before it is killed.
	peerStop = 3 * time.Second

	// portTries is how many free ports are tried where others are faster.
	portTries = 5
)

// peerProcess is one reference peer: a process that can be killed and started again on the same address and data.
type peerProcess struct {
	id         string
	executable string
	dir        string // of its data
	keys       string // of enrolled senders
	logPath    string
	addr       string

	run atomic.Pointer[child.Process] // nil before the first start
}

func (p *peerProcess) url() string { return "http://" + p.addr }

// pid is the number of the process, 0 while there is none.
func (p *peerProcess) pid() int {
	if run := p.run.Load(); run != nil && run.Err() == nil {
		return run.Pid()
	}
	return 0
}

// startOnFreePort chooses the peer's address and starts it.
func (p *peerProcess) startOnFreePort(ctx context.Context) error {
	var err error
	for range portTries {
		port, portErr := child.FreePort(ctx)
		if portErr != nil {
			return fmt.Errorf("start %s: %w", p.id, portErr)
		}
		p.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if err = p.start(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// start runs the peer and returns when it answers. On an error no process is left.
func (p *peerProcess) start(ctx context.Context) error {
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.id, err)
	}
	defer log.Close() // the child has its own handle

	// It does not end with ctx: stop and kill end it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.executable, "peer", //nolint:gosec // this program itself
		"--id", p.id, "--data", p.dir, "--listen", p.addr, "--keys", p.keys, "--require-enrollment")
	cmd.Env = peerEnv()
	cmd.Stdout, cmd.Stderr = log, log
	run, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.id, err)
	}
	p.run.Store(run)

	err = poll(ctx, peerStart, p.id+" to answer", func(ctx context.Context) (bool, error) {
		if err := run.Err(); err != nil {
			return false, fmt.Errorf("it ended at once (%w); its log ends: %s", err, child.LogTail(p.logPath))
		}
		return p.answers(ctx), nil
	})
	if err != nil {
		run.Kill()
		return fmt.Errorf("start %s: %w", p.id, err)
	}
	return nil
}

// peerEnv is the environment without what is none of a peer's business.
func peerEnv() []string { return child.Environment("QUORUMBOX_", "DATABASE_URL=", "PG") }

func (p *peerProcess) answers(ctx context.Context) bool {
	resp, err := p.get(ctx, "/api/v1/health")
	if err != nil {
		return false
	}
	_ = resp.Close() // an answer is all that was wanted
	return true
}

// get asks the peer and returns the body of a 200.
func (p *peerProcess) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url()+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // not through a proxy
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("GET %s: %s", path, resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// kill ends the peer with SIGKILL, which it cannot prepare for, and returns when it is gone.
func (p *peerProcess) kill() {
	if run := p.run.Load(); run != nil {
		run.Kill()
	}
}

// stop lets the peer end, and kills it if it takes too long or ctx ends.
func (p *peerProcess) stop(ctx context.Context) {
	if run := p.run.Load(); run != nil {
		ctx, cancel := context.WithTimeout(ctx, peerStop)
		defer cancel()
		run.Stop(ctx, syscall.SIGTERM)
	}
}
