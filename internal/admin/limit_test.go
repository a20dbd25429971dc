package admin

import (
	"context"
	"net"
	"testing"
	"time"
)

// Connections beyond the bound wait until another one is closed.
func TestLimit(t *testing.T) {
	t.Parallel()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 2)
	accepted := make(chan net.Conn, 5)
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- conn
		}
	}()
	for range 4 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first, second := <-accepted, <-accepted
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // for what must not happen
	defer cancel()
	select {
	case <-accepted:
		t.Error("got a third connection beside two open ones")
	case <-ctx.Done():
	}
	if _, ok := first.(interface{ CloseWrite() error }); !ok {
		t.Error("a connection cannot be closed for writing alone")
	}
	_ = first.Close()
	_ = first.Close() // makes room once
	third := <-accepted
	select {
	case <-accepted:
		t.Error("got a fourth connection for one that was closed twice")
	default:
	}
	_ = l.Close()
	_ = l.Close()
	if err := <-ended; err == nil {
		t.Error("got no error from a closed listener")
	}
	_ = second.Close()
	_ = third.Close()
}
