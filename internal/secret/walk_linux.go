package secret

import "golang.org/x/sys/unix"

// folderFlags opens a folder to go through it, which needs no right to list it.
const folderFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
