package bench

import "syscall"

// endWithParent makes the kernel kill the child when the thread that started it dies.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
