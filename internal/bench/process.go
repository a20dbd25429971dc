//go:build unix

package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"quorumbox/internal/child"
)

const (
	// stopPatience is what a child gets after SIGTERM before it is killed.
	stopPatience = 20 * time.Second

	// startPatience bounds the wait for a child's first line.
	startPatience = 15 * time.Second
)

// process is a child: another run of this program.
type process struct {
	*child.Process

	name    string
	logPath string
}

// spawn describes a child.
type spawn struct {
	program string
	args    []string
	env     []string // added to this process's own
	log     string   // file for its standard error
}

// start starts the child. What it writes to its standard output is thrown away.
func (s spawn) start(name string) (*process, error) {
	cmd, log, err := s.command()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own handle
	run, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &process{run, name, s.log}, nil
}

// startWithLine starts the child and returns the first line that it writes. On an error no child is left.
func (s spawn) startWithLine(ctx context.Context, name string) (*process, string, error) {
	cmd, log, err := s.command()
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own handle
	waiting, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("no line from %s for %s: %w", name, startPatience, context.DeadlineExceeded))
	defer cancel()
	run, line, err := child.StartWithLine(waiting, cmd, syscall.SIGKILL)
	if run == nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{run, name, s.log}
	if err == nil {
		return p, line, nil
	}
	if ended := p.alive(); ended != nil {
		return nil, "", ended
	}
	p.stop(ctx)
	return nil, "", fmt.Errorf("start %s: %w", name, err)
}

// command is the child to be, and the file that it logs to.
func (s spawn) command() (*exec.Cmd, *os.File, error) {
	log, err := os.Create(s.log)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(s.program, s.args...) //nolint:gosec,noctx // this program itself; stop ends it, in order
	cmd.Env = append(child.Environment("QUORUMBOX_", "DATABASE_URL="), s.env...)
	cmd.Stderr = log
	return cmd, log, nil
}

// alive returns an error with the end of the child's log if the child has ended.
func (p *process) alive() error {
	if err := p.Err(); err != nil {
		return fmt.Errorf("%s ended by itself (%w); its log ends: %s", p.name, err, p.logEnd())
	}
	return nil
}

func (p *process) logEnd() string { return cmp.Or(child.LogTail(p.logPath), "(nothing)") }

// stop asks the child to end and kills it if it has not done so in time. It returns when the child is gone, also if ctx has ended.
func (p *process) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	p.Stop(ctx, syscall.SIGTERM)
}
