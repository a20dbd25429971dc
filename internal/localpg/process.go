//go:build unix

package localpg

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is the running server. One goroutine starts it and waits for it; that goroutine ends with the process.
type process struct {
	cmd    *exec.Cmd
	pid    int
	exited chan struct{} // closed when the process is gone
	err    error         // why it ended; read it after exited is closed
}

// startProcess starts the program, which gets the signal when this process dies. It does so on a thread of its own, which lives as long as the program: on Linux the signal for the
// parent's death is in truth one for the death of the thread that started the child (prctl(2), PR_SET_PDEATHSIG).
func startProcess(cmd *exec.Cmd, onParentDeath syscall.Signal) (*process, error) {
	endWithParent(cmd, onParentDeath)
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1) // one send; never blocks
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		release := guardChild(cmd, onParentDeath)
		started <- nil
		p.err = cmd.Wait()
		release()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) isOver() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// signal is lost on a process that is gone, which is what its senders want.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process and everything it started, and waits until it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGQUIT) // the server takes its own children with it
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.signal(syscall.SIGKILL) // the server's children notice, and end
		<-p.exited
	}
}
