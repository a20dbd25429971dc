package localpg

import "syscall"

// isRoomyMemory says whether the path is a file system in memory with space for a server's data.
func isRoomyMemory(path string) bool {
	const tmpfsMagic = 0x01021994 // statfs(2)
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return false
	}
	return stat.Type == tmpfsMagic && stat.Bavail*uint64(stat.Bsize) >= roomyMemory //nolint:gosec // a block size is positive
}
