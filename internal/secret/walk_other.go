//go:build unix && !linux

package secret

import "golang.org/x/sys/unix"

// folderFlags opens a folder to go through it.
const folderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
