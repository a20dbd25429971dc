package peer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

// rawPeer is a peer below HTTP: serve gets each connection, numbered from 0, and what it has written is counted.
type rawPeer struct {
	net.Listener
	accepts atomic.Int64
	wrote   atomic.Int64
	group   sync.WaitGroup
}

func newRawPeer(tb testing.TB, serve func(n int, conn net.Conn, in *bufio.Reader)) *rawPeer {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener lives until its cleanup.
	if err != nil {
		tb.Fatal(err)
	}
	raw := &rawPeer{Listener: listener}
	var mu sync.Mutex
	var conns []net.Conn
	raw.group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			n := int(raw.accepts.Add(1)) - 1
			raw.group.Go(func() {
				defer conn.Close()
				serve(n, countingConn{conn, &raw.wrote}, bufio.NewReader(conn))
			})
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		raw.group.Wait()
	})
	return raw
}

func (raw *rawPeer) url() string { return "http://" + raw.Addr().String() }

type countingConn struct {
	net.Conn
	wrote *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.wrote.Add(int64(n))
	return n, err
}

// readRequest reads one request with its body and returns its nonce.
func readRequest(in *bufio.Reader) (nonce string, err error) {
	request, err := http.ReadRequest(in)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, request.Body)
	return request.Header.Get("X-Memory-Nonce"), errors.Join(err, request.Body.Close())
}

// flood writes text until the connection breaks.
func flood(conn net.Conn, text string) {
	chunk := strings.Repeat(text, 1+4096/len(text))
	for {
		if _, err := io.WriteString(conn, chunk); err != nil {
			return
		}
	}
}

// afterRequest answers each request of a connection with what answer writes, once.
func afterRequest(answer func(conn net.Conn)) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, conn net.Conn, in *bufio.Reader) {
		if _, err := readRequest(in); err == nil {
			answer(conn)
		}
	}
}

func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	write := func(text string) func(net.Conn) {
		return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
	}
	tests := []struct {
		name    string
		answer  func(conn net.Conn)
		class   peer.Class
		outcome peer.Outcome
	}{
		{"closes without an answer", func(net.Conn) {}, peer.ClassConnectionLost, peer.Unknown},
		{"resets without an answer", reset, peer.ClassConnectionLost, peer.Unknown},
		{"resets inside the body", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"applied\":1")
			reset(conn)
		}, peer.ClassConnectionLost, peer.Unknown},
		{"cuts a body that would parse", write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), peer.ClassConnectionLost, peer.Unknown},
		{"cuts a chunked body that would parse", write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), peer.ClassConnectionLost, peer.Unknown},
		{"cuts the status line", write("HTTP/1.1 20"), peer.ClassMalformedAnswer, peer.Unknown},
		{"cuts the headers", write("HTTP/1.1 200 OK\r\nContent-"), peer.ClassMalformedAnswer, peer.Unknown},
		{"cuts a refusal", write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nno"), peer.ClassUnavailable, peer.Fail},
		{"garbage", write(canary + "\r\n\r\n"), peer.ClassMalformedAnswer, peer.Unknown},
		{"binary garbage", write("\x00\x01\x02\x03\r\n\r\n"), peer.ClassMalformedAnswer, peer.Unknown},
		{"malformed header", write("HTTP/1.1 200 OK\r\n" + canary + "\r\n\r\n{}"), peer.ClassMalformedAnswer, peer.Unknown},
		{"malformed chunks", write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"), peer.ClassMalformedAnswer, peer.Unknown},
		{"status of four digits", write("HTTP/1.1 2000 OK\r\n\r\n{}"), peer.ClassMalformedAnswer, peer.Unknown},
		{"two lengths", write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), peer.ClassMalformedAnswer, peer.Unknown},
		{"a TLS alert", write("\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"), peer.ClassTLS, peer.Fail},
		{"endless body", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
			flood(conn, " ")
		}, peer.ClassMalformedAnswer, peer.Unknown},
		{"endless body of a refusal", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n")
			flood(conn, "10\r\n0123456789abcdef\r\n")
		}, peer.ClassUnavailable, peer.Fail},
		{"endless header line", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
			flood(conn, "x")
		}, peer.ClassMalformedAnswer, peer.Unknown},
		{"endless headers", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			flood(conn, "X: y\r\n")
		}, peer.ClassMalformedAnswer, peer.Unknown},
		{"endless interim answers", func(conn net.Conn) { flood(conn, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") }, peer.ClassMalformedAnswer, peer.Unknown},
		{"endless status line", func(conn net.Conn) { flood(conn, "H") }, peer.ClassMalformedAnswer, peer.Unknown},
		{"endless trailers", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
			flood(conn, "X: y\r\n")
		}, peer.ClassMalformedAnswer, peer.Unknown},
		{"switches protocols", func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		}, peer.ClassHTTPOther, peer.Fail},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			raw := newRawPeer(t, afterRequest(test.answer))
			err := newClient(t, raw.url(), signed).Post(testContext(t), peer.Request{Body: body(), IdempotencyKey: "m-1"})
			e := classified(t, err, test.class, test.outcome)
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, e), canary) {
				t.Errorf("the error holds what the peer wrote: %v", err)
			}
			// What the kernel buffers comes on top of what is read, hence the wide bound.
			waitFor(t, "the connection to end", func() bool { return raw.accepts.Load() == 1 })
			if wrote := raw.wrote.Load(); wrote > 16<<20 {
				t.Errorf("the peer could write %d bytes", wrote)
			}
		})
	}
}

func reset(conn net.Conn) {
	if counting, ok := conn.(countingConn); ok {
		conn = counting.Conn
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func TestSlowAnswerIsCutAtTheDeadline(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"in the headers": "HTTP/1.1 200 OK\r\nX: ",
		"in the body":    "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			raw := newRawPeer(t, afterRequest(func(conn net.Conn) {
				defer close(ended)
				_, _ = io.WriteString(conn, head)
				ticker := time.NewTicker(10 * time.Millisecond)
				defer ticker.Stop()
				for range ticker.C {
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
				}
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			start := time.Now()
			checkClass(t, newClient(t, raw.url()).Post(ctx, peer.Request{Body: body()}), peer.ClassTimeout, peer.Unknown)
			if elapsed := time.Since(start); elapsed > 2*time.Second {
				t.Errorf("took %s, want about 150ms", elapsed)
			}
			select {
			case <-ended:
			case <-testContext(t).Done():
				t.Error("the connection was not closed")
			}
		})
	}
}

func TestAnswerBeforeTheWholePushIsNoAck(t *testing.T) {
	t.Parallel()
	content := []byte(strings.Repeat("x", peer.MaxBodyBytes))
	for _, test := range []struct {
		name, status string
		class        peer.Class
		outcome      peer.Outcome
	}{
		{"200", "200 OK", peer.ClassMalformedAnswer, peer.Unknown},
		{"413", "413 Content Too Large", peer.ClassTooLarge, peer.Fail},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, "http://peer.invalid", signed)
			// A pipe has no buffer, so the peer cannot get more of the body than it reads.
			over := make(chan struct{})
			pipe := newPipePeer(func(conn net.Conn, in *bufio.Reader) {
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 "+test.status+"\r\nContent-Length: 2\r\n\r\n{}")
				<-over
			})
			defer pipe.group.Wait()
			peer.SetDial(client, pipe.dial)
			buf := append([]byte(nil), content...)
			err := client.Post(testContext(t), peer.Request{Body: buf})
			close(over)
			clear(buf) // the buffer is the caller's again; the race detector watches
			checkClass(t, err, test.class, test.outcome)
		})
	}
}

// pipePeer serves connections without a network, for exact times and exact bytes.
type pipePeer struct {
	serve func(conn net.Conn, in *bufio.Reader)
	group sync.WaitGroup
}

func newPipePeer(serve func(conn net.Conn, in *bufio.Reader)) *pipePeer {
	return &pipePeer{serve: serve}
}

func (p *pipePeer) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.group.Go(func() {
		defer theirs.Close()
		p.serve(theirs, bufio.NewReader(theirs))
	})
	return ours, nil
}

func TestBodyIsSentOverAnyNumberOfReads(t *testing.T) {
	t.Parallel()
	raw := newRawPeer(t, func(_ int, conn net.Conn, in *bufio.Reader) {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, request.Body)
		if err == nil && n == peer.MaxBodyBytes && len(request.TransferEncoding) == 0 {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		}
	})
	content := []byte(strings.Repeat("x", peer.MaxBodyBytes))
	if err := newClient(t, raw.url(), signed).Post(testContext(t), peer.Request{Body: content}); err != nil {
		t.Errorf("Post: %v", err)
	}
}

// replayPeer answers the first request of its first connection and closes each later request of it unanswered, as a daemon
// that restarts does. On other connections it answers everything.
type replayPeer struct {
	mu     sync.Mutex
	nonces []string
}

func (p *replayPeer) serve(n int, conn net.Conn, in *bufio.Reader) {
	for i := 0; ; i++ {
		nonce, err := readRequest(in)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.nonces = append(p.nonces, nonce)
		p.mu.Unlock()
		if n == 0 && i == 1 {
			return
		}
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(okAnswer), okAnswer); err != nil {
			return
		}
	}
}

// TestTransportSilentReplay holds net/http to one wire request for each attempt: with an Idempotency-Key and a body that can be
// rewound it sends a request again by itself when a kept-alive connection dies, with the nonce and signature of the first.
func TestTransportSilentReplay(t *testing.T) {
	t.Parallel()
	var p replayPeer
	raw := newRawPeer(t, p.serve)
	client := newClient(t, raw.url(), signed)
	request := peer.Request{Body: body(), IdempotencyKey: "m-1"}

	if err := client.Post(testContext(t), request); err != nil {
		t.Fatalf("first push: %v", err)
	}
	checkClass(t, client.Post(testContext(t), request), peer.ClassConnectionLost, peer.Unknown)
	if got := len(p.seen(t)); got != 2 {
		t.Errorf("requests after 2 attempts: got %d, want 2", got)
	}
	if err := client.Post(testContext(t), request); err != nil {
		t.Fatalf("third push: %v", err)
	}
	if got := len(p.seen(t)); got != 3 {
		t.Errorf("requests after 3 attempts: got %d, want 3", got)
	}
}

// TestPushReplaysWithANewNonce is the same peer, with our own retry: acknowledged in the end, and two nonces.
func TestPushReplaysWithANewNonce(t *testing.T) {
	t.Parallel()
	var p replayPeer
	raw := newRawPeer(t, p.serve)
	client := newClient(t, raw.url(), signed)
	request := peer.Request{Body: body(), IdempotencyKey: "m-1"}
	if err := client.Push(testContext(t), request); err != nil {
		t.Fatalf("first push: %v", err)
	}
	report, err := client.PushReport(testContext(t), request)
	if err != nil {
		t.Fatalf("second push: %v", err)
	}
	if want := (peer.Report{Attempts: 2, InDoubt: true}); report != want {
		t.Errorf("report: got %+v, want %+v", report, want)
	}
	if got := len(p.seen(t)); got != 3 {
		t.Errorf("requests: got %d, want 3", got)
	}
}

// TestServerClosesIdleConnections pushes against a peer that closes each connection right after its answer: the race between its
// close and our next request must never make a request more than attempts.
func TestServerClosesIdleConnections(t *testing.T) {
	t.Parallel()
	var p replayPeer
	raw := newRawPeer(t, func(_ int, conn net.Conn, in *bufio.Reader) {
		nonce, err := readRequest(in)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.nonces = append(p.nonces, nonce)
		p.mu.Unlock()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(okAnswer), okAnswer)
	})
	client := newClient(t, raw.url(), signed)
	acks := 0
	const attempts = 200
	for range attempts {
		err := client.Post(testContext(t), peer.Request{Body: body(), IdempotencyKey: "m-1"})
		switch peer.ClassOf(err) {
		case peer.ClassOK:
			acks++
		case peer.ClassConnectionLost, peer.ClassUnreachable:
		default:
			t.Fatalf("Post: %v", err)
		}
	}
	got := len(p.seen(t))
	if got > attempts || got < acks {
		t.Errorf("requests: got %d, want between the acks (%d) and the attempts (%d)", got, acks, attempts)
	}
}

// seen returns the nonces so far and fails the test if one came twice.
func (p *replayPeer) seen(tb testing.TB) []string {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	unique := map[string]bool{}
	for _, nonce := range p.nonces {
		if nonce == "" || unique[nonce] {
			tb.Errorf("nonce %q is missing or came twice", nonce)
		}
		unique[nonce] = true
	}
	return append([]string(nil), p.nonces...)
}
