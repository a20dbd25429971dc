package peer_test

import (
	"net"
	"net/http/httptrace"
	"syscall"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

func TestTCPUserTimeoutIsSet(t *testing.T) {
	t.Parallel()
	const tcpUserTimeout = 0x12 // linux/tcp.h
	rec := newRecorder(t, answerOK)
	for _, test := range []struct {
		name   string
		change func(*peer.Config)
		want   int
	}{
		{"default", func(*peer.Config) {}, 20_000},
		{"configured", func(cfg *peer.Config) { cfg.TCPUserTimeout = 1500 * time.Millisecond }, 1500},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, keepAlive := 0, 0
			ctx := httptrace.WithClientTrace(testContext(t), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
				tcp, ok := info.Conn.(*net.TCPConn)
				if !ok {
					t.Errorf("connection: got %T, want *net.TCPConn", info.Conn)
					return
				}
				raw, err := tcp.SyscallConn()
				if err != nil {
					t.Error(err)
					return
				}
				if err := raw.Control(func(fd uintptr) {
					got, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
					keepAlive, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
				}); err != nil {
					t.Error(err)
				}
			}})
			if err := newClient(t, rec.URL, test.change).Post(ctx, peer.Request{Body: body()}); err != nil {
				t.Fatalf("Post: %v", err)
			}
			if got != test.want {
				t.Errorf("TCP_USER_TIMEOUT: got %d ms, want %d", got, test.want)
			}
			if keepAlive != 60 {
				t.Errorf("TCP_KEEPIDLE: got %d s, want 60", keepAlive)
			}
		})
	}
}
