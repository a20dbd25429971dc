//go:build unix

package child

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// FreePort picks a random port on which nobody listens at 127.0.0.1, for a child that is told its port and comes back on it. It is
// below the range that systems use for outgoing connections (from 32768 on Linux, from 49152 elsewhere), so that nobody is
// given it while the child is down. Somebody else may still be faster: try another one then.
func FreePort(ctx context.Context) (int, error) {
	const low, high, tries = 20000, 32000, 100
	var last error
	for range tries {
		port := low + rand.IntN(high-low) //nolint:gosec // G404: no secret
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		return port, listener.Close()
	}
	return 0, fmt.Errorf("find a free port from %d to %d: %w", low, high, last)
}
