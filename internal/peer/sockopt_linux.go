package peer

import (
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall does not define for every architecture.
const tcpUserTimeout = 0x12

// setUserTimeout bounds how long the kernel goes on with data that the peer does not acknowledge, also after the socket was
// closed (tcp(7)). It is what bounds the life of a request that was given up.
func setUserTimeout(fd uintptr, timeout time.Duration) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(timeout.Milliseconds()))
}
