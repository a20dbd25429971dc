package admin

import (
	"net"
	"sync"
)

// limited is a listener with a bound on the connections that are open at a time: one more waits to be accepted. It is netutil.LimitListener of golang.org/x/net, but its
// connections can still be closed for writing alone, without which a client that sends too much would see a reset in place of the answer.
type limited struct {
	net.Listener

	slots  chan struct{} // one value for each open connection
	closed chan struct{}
	once   sync.Once
}

// limit bounds the connections of a TCP listener.
func limit(l net.Listener, conns int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, conns), closed: make(chan struct{})}
}

// Accept waits for a connection, and before for room for it.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	release := func() { <-l.slots }
	conn, err := l.Listener.Accept()
	if err != nil {
		release()
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok { // Listen opens no other
		release()
		return nil, net.ErrClosed
	}
	return &limitedConn{TCPConn: tcp, release: sync.OnceFunc(release)}, nil
}

// Close ends Accept.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	*net.TCPConn

	release func()
}

// Close makes room for another connection.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
