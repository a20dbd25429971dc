package localpg

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel send the signal to the program when its parent dies.
func endWithParent(cmd *exec.Cmd, signal syscall.Signal) { cmd.SysProcAttr.Pdeathsig = signal }

// guardChild has nothing to do here: the kernel does it.
func guardChild(*exec.Cmd, syscall.Signal) (release func()) { return func() {} }

// isRoomyMemory says whether the path is a file system in memory with space for a server's data.
func isRoomyMemory(path string) bool {
	const tmpfsMagic = 0x01021994 // statfs(2)
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return false
	}
	return stat.Type == tmpfsMagic && stat.Bavail*uint64(stat.Bsize) >= roomyMemory //nolint:gosec // a block size is positive
}
