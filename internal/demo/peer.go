package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// peerStart bounds how long a peer may take until it answers.
	peerStart = 20 * time.Second

	// peerStop is what a peer gets after SIGTERM before it is killed.
	peerStop = 3 * time.Second

	// portTries is how many free ports are tried where others are faster.
	portTries = 5

	// logTailBytes is how much of a log an error quotes.
	logTailBytes = 1500
)

// peerProcess is one reference peer: a process that can be killed and started again on the same address and data.
type peerProcess struct {
	id         string
	executable string
	dir        string // of its data
	keys       string // of enrolled senders
	logPath    string
	addr       string

	child atomic.Pointer[child]
}

// child is one run of a peer.
type child struct {
	pid    int
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone
	err    error         // why; to be read after exited is closed
}

func (c *child) isOver() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

func (p *peerProcess) url() string { return "http://" + p.addr }

// pid is the number of the process, 0 while there is none.
func (p *peerProcess) pid() int {
	if c := p.child.Load(); c != nil && !c.isOver() {
		return c.pid
	}
	return 0
}

// startOnFreePort chooses the peer's address and starts it.
func (p *peerProcess) startOnFreePort(ctx context.Context) error {
	var err error
	for range portTries {
		if p.addr, err = freeAddr(ctx); err != nil {
			return fmt.Errorf("start %s: %w", p.id, err)
		}
		if err = p.start(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// freeAddr is a loopback address that nobody listens on, below the ports that systems use for outgoing connections, so that nobody takes
// it while its peer is down.
func freeAddr(ctx context.Context) (string, error) {
	var last error
	for range 100 {
		port := 20000 + rand.IntN(12000) //nolint:gosec // no secret
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		return listener.Addr().String(), listener.Close()
	}
	return "", fmt.Errorf("find a free port: %w", last)
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
	// A process group of its own: a Ctrl-C at the terminal reaches this process only, which then decides.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	c, err := startChild(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.id, err)
	}
	p.child.Store(c)

	err = poll(ctx, peerStart, p.id+" to answer", func(ctx context.Context) (bool, error) {
		if c.isOver() {
			return false, fmt.Errorf("it ended at once (%w); its log ends: %s", cmp.Or(c.err, errors.New("exit status 0")), logTail(p.logPath))
		}
		return p.answers(ctx), nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.id, err), p.kill())
	}
	return nil
}

// startChild starts the program on a thread that lives as long as the child does: on Linux the signal for the parent's death is one for the
// death of the thread that started the child (prctl(2), PR_SET_PDEATHSIG).
func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1) // one send; never blocks
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		c.pid = cmd.Process.Pid
		started <- nil
		c.err = cmd.Wait()
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// peerEnv is the environment without what is none of a peer's business.
func peerEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "QUORUMBOX_") && !strings.HasPrefix(v, "DATABASE_URL=") && !strings.HasPrefix(v, "PG") {
			env = append(env, v)
		}
	}
	return env
}

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
func (p *peerProcess) kill() error {
	c := p.child.Load()
	if c == nil {
		return nil
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.id, err)
	}
	<-c.exited
	return nil
}

// stop lets the peer end, and kills it if it takes too long.
func (p *peerProcess) stop(ctx context.Context) error {
	c := p.child.Load()
	if c == nil {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // lost on one that is gone
	timer := time.NewTimer(peerStop)
	defer timer.Stop()
	select {
	case <-c.exited:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return p.kill()
}

// logTail is the end of a log, "" if there is none.
func logTail(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // a file in the demo's own folder
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTailBytes):]))
}
