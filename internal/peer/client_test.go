package peer_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

func TestPostHeaders(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		change  func(*peer.Config)
		request peer.Request
		want    map[string]string // "" means absent
	}{
		{
			"bare", func(*peer.Config) {},
			peer.Request{},
			map[string]string{"Idempotency-Key": "", "X-Catchup": "", "X-Api-Key": "", "X-Memory-Sig": "", "X-Memory-Nonce": "", "Authorization": ""},
		},
		{"idempotency key", func(*peer.Config) {}, peer.Request{IdempotencyKey: "m-1"}, map[string]string{"Idempotency-Key": "m-1"}},
		{"catch-up", func(*peer.Config) {}, peer.Request{Catchup: peer.CatchupBulk}, map[string]string{"X-Catchup": "bulk", "Idempotency-Key": ""}},
		{"api key", func(cfg *peer.Config) { cfg.APIKey = secret.New(canary) }, peer.Request{}, map[string]string{"X-Api-Key": canary}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, answerOK)
			test.request.Body = body()
			if err := newClient(t, rec.URL+"/", test.change).Post(testContext(t), test.request); err != nil {
				t.Fatalf("Post: %v", err)
			}
			got := rec.all()[0]
			test.want["Content-Type"] = "application/json"
			test.want["X-Peer-Id"] = senderID
			test.want["Content-Length"] = strconv.Itoa(len(body()))
			test.want["Accept-Encoding"] = ""
			test.want["User-Agent"] = "quorumbox"
			for name, want := range test.want {
				if _, present := got.header[name]; present != (want != "") || got.header.Get(name) != want {
					t.Errorf("%s: got %q, want %q", name, got.header[name], want)
				}
			}
			if got.method != http.MethodPost || got.path != "/api/v1/sync/push" {
				t.Errorf("got %s %s, want POST /api/v1/sync/push", got.method, got.path)
			}
			if got.length != int64(len(body())) {
				t.Errorf("content length: got %d, want %d", got.length, len(body()))
			}
		})
	}
}

func TestPostKeepsAPathPrefix(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	if err := newClient(t, rec.URL+"/node%2D1//").Post(testContext(t), peer.Request{Body: body()}); err != nil {
		t.Fatalf("Post: %v", err)
	}
	if got, want := rec.all()[0].path, "/node%2D1/api/v1/sync/push"; got != want {
		t.Errorf("path: got %s, want %s", got, want)
	}
}

func TestPostSignsTheBytesItSends(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	client := newClient(t, rec.URL, signed)
	content := peer.Message{Memories: []json.RawMessage{[]byte(`{"id":"m-1","title":"` + strings.Repeat("é", 40_000) + `"}`)}}.Encode(senderID)
	for range 3 {
		if err := client.Post(testContext(t), peer.Request{Body: content, IdempotencyKey: "m-1"}); err != nil {
			t.Fatalf("Post: %v", err)
		}
	}
	nonces := map[string]bool{}
	for _, request := range rec.all() {
		verify(t, request)
		if diff := cmp.Diff(string(content), string(request.body)); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
		nonce := request.header.Get("X-Memory-Nonce")
		if id, err := uuid.Parse(nonce); err != nil || id.Version() != 4 || id.String() != nonce {
			t.Errorf("nonce: got %q, want a version 4 UUID", nonce)
		}
		nonces[nonce] = true
	}
	if len(nonces) != 3 {
		t.Errorf("nonces: got %d, want 3", len(nonces))
	}
}

func TestPostReusesConnections(t *testing.T) {
	t.Parallel()
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { _, _ = io.WriteString(w, okAnswer) },
		func(w http.ResponseWriter) { http.Error(w, strings.Repeat("x", 60_000), http.StatusServiceUnavailable) },
		func(w http.ResponseWriter) { http.Error(w, "no", http.StatusUnauthorized) },
		func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
		func(w http.ResponseWriter) { _, _ = io.WriteString(w, okAnswer) },
	}
	rec := newRecorder(t, func(n int, w http.ResponseWriter, _ *http.Request) { answers[n](w) })
	client := newClient(t, rec.URL, signed)
	for range answers {
		_ = client.Post(testContext(t), peer.Request{Body: body()})
	}
	if got := len(rec.all()); got != len(answers) {
		t.Errorf("requests: got %d, want %d", got, len(answers))
	}
	if got := rec.accepts.Load(); got != 1 {
		t.Errorf("accepted connections: got %d, want 1", got)
	}
}

func TestPostRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	client := newClient(t, rec.URL, signed)
	tests := []struct {
		name    string
		request peer.Request
		class   peer.Class
		text    string
	}{
		{"no body", peer.Request{}, peer.ClassInvalidRequest, "request not sent: the body is empty"},
		{"long body", peer.Request{Body: make([]byte, peer.MaxBodyBytes+1)}, peer.ClassTooLarge, "request not sent: the body has 2097153 bytes"},
		{"key with a line feed", peer.Request{Body: body(), IdempotencyKey: "a\r\nX-Evil: 1"}, peer.ClassInvalidRequest, "request not sent: the idempotency key"},
		{"key outside of ASCII", peer.Request{Body: body(), IdempotencyKey: "é"}, peer.ClassInvalidRequest, "request not sent: the idempotency key"},
		{"long key", peer.Request{Body: body(), IdempotencyKey: strings.Repeat("a", 8193)}, peer.ClassInvalidRequest, "request not sent: the idempotency key"},
	}
	for _, test := range tests {
		for name, send := range map[string]func(context.Context, peer.Request) error{"Post": client.Post, "Push": client.Push} {
			e := classified(t, send(testContext(t), test.request), test.class, peer.Fail)
			if !strings.HasPrefix(e.Error(), test.text) {
				t.Errorf("%s %s: got %q, want it to begin with %q", name, test.name, e, test.text)
			}
			if !e.Class.Refusal() {
				t.Errorf("%s %s: class %s is no refusal", name, test.name, e.Class)
			}
		}
	}
	if got := len(rec.all()); got != 0 {
		t.Errorf("requests: got %d, want 0", got)
	}
}

func TestPostSendsTheLargestBody(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	content := []byte(strings.Repeat("x", peer.MaxBodyBytes))
	if err := newClient(t, rec.URL, signed).Post(testContext(t), peer.Request{Body: content}); err != nil {
		t.Fatalf("Post: %v", err)
	}
	verify(t, rec.all()[0])
}

func TestGate(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	denied := errors.New("not on\nthe list " + strings.Repeat("x", 300))
	var asked atomic.Int64
	client := newClient(t, strings.Replace(rec.URL, "127.0.0.1", "peer.invalid", 1), func(cfg *peer.Config) {
		cfg.Gate = func(scheme, host string) error {
			asked.Add(1)
			if scheme != "http" || host != "peer.invalid" {
				t.Errorf("gate: got %s %s, want http peer.invalid", scheme, host)
			}
			return denied
		}
	})
	err := client.Push(testContext(t), peer.Request{Body: body()})
	e := classified(t, err, peer.ClassBlocked, peer.Fail)
	if want := "governance refused outbound to peer.invalid: not on?the list xxx"; !strings.HasPrefix(e.Error(), want) {
		t.Errorf("got %q, want it to begin with %q", e, want)
	}
	if !errors.Is(err, denied) {
		t.Error("the gate's error is not in the tree")
	}
	if asked.Load() != 1 {
		t.Errorf("gate asked %d times, want 1", asked.Load())
	}

	open := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.Gate = func(string, string) error { return nil } })
	if err := open.Push(testContext(t), peer.Request{Body: body()}); err != nil {
		t.Errorf("open gate: %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			second := newRecorder(t, answerOK)
			first := newRecorder(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, second.URL, status)
			})
			client := newClient(t, first.URL, func(cfg *peer.Config) { cfg.APIKey = secret.New(canary) })
			e := classified(t, client.Post(testContext(t), peer.Request{Body: body()}), peer.ClassRedirect, peer.Fail)
			if !e.Class.Configuration() {
				t.Error("a redirect is no matter of configuration")
			}
			if got := second.accepts.Load(); got != 0 {
				t.Errorf("connections to the second server: got %d, want 0", got)
			}
		})
	}
}

func TestProxyFromTheEnvironmentIsIgnored(t *testing.T) {
	proxy := newRecorder(t, answerOK)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	// net/http never uses a proxy for loopback, so the peer has a name; it cannot be resolved.
	client := newClient(t, "http://peer.invalid:9077")
	if err := client.Post(testContext(t), peer.Request{Body: body()}); err == nil {
		t.Error("got an ack, want an error: the name does not resolve")
	}
	if got := proxy.accepts.Load(); got != 0 {
		t.Errorf("connections to the proxy: got %d, want 0", got)
	}
	if peer.ProxyOf(client) {
		t.Error("the transport has a proxy function")
	}
}

func TestDialGuardIsAsked(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	_, port, err := net.SplitHostPort(rec.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		client := newClient(t, "http://"+net.JoinHostPort(strings.Trim(host, "[]"), port), func(cfg *peer.Config) { cfg.AllowNets = nil })
		err := client.Push(testContext(t), peer.Request{Body: body()})
		e := classified(t, err, peer.ClassBlocked, peer.Fail)
		if !errors.Is(err, peer.ErrBlocked) || !e.Class.Configuration() {
			t.Errorf("%s: got %v, want ErrBlocked as a matter of configuration", host, err)
		}
		if !strings.HasPrefix(e.Error(), "network: address is not allowed: ") || !strings.Contains(e.Error(), "loopback") {
			t.Errorf("%s: got %q, want the guard's reason", host, e)
		}
	}
	metadata := newClient(t, "http://169.254.169.254", func(cfg *peer.Config) { cfg.AllowNets = loopback() })
	checkClass(t, metadata.Post(testContext(t), peer.Request{Body: body()}), peer.ClassBlocked, peer.Fail)
	if got := rec.accepts.Load(); got != 0 {
		t.Errorf("accepted connections: got %d, want 0", got)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	e := classified(t, newClient(t, url).Post(testContext(t), peer.Request{Body: body()}), peer.ClassRefusedConnection, peer.Fail)
	if want := "network: dial " + strings.TrimPrefix(url, "http://") + ": connection refused"; e.Error() != want {
		t.Errorf("got %q, want %q", e, want)
	}
}

func TestNameDoesNotResolve(t *testing.T) {
	t.Parallel()
	err := newClient(t, "http://peer.invalid").Post(testContext(t), peer.Request{Body: body()})
	e := classified(t, err, peer.ClassUnreachable, peer.Fail)
	if !strings.HasPrefix(e.Error(), "network: the host name ") {
		t.Errorf("got %q, want it to name the host name", e)
	}
}

func TestConcurrentPushesShareTheClient(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	client := newClient(t, rec.URL, signed, func(cfg *peer.Config) { cfg.MaxConns = 4 })
	ctx := testContext(t)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			// A caller may use its buffer again as soon as the call is over.
			var buf []byte
			for i := range 10 {
				message := peer.Message{Deletions: []string{fmt.Sprintf("m-%d-%d", worker, i)}}
				buf = append(buf[:0], message.Encode(senderID)...)
				if err := client.Push(ctx, peer.Request{Body: buf}); err != nil {
					t.Errorf("Push: %v", err)
				}
				clear(buf)
			}
		})
	}
	group.Wait()
	got := rec.all()
	if len(got) != 80 {
		t.Errorf("requests: got %d, want 80", len(got))
	}
	for _, request := range got {
		verify(t, request)
	}
	if got := rec.accepts.Load(); got > 4 {
		t.Errorf("connections: got %d, want at most 4", got)
	}
}

func TestClientPrintsItsID(t *testing.T) {
	t.Parallel()
	client := newClient(t, "http://127.0.0.1:1", func(cfg *peer.Config) {
		cfg.SigningKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	})
	if got, want := fmt.Sprintf("%+v", client), `peer "peer-a"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := client.ID(); got != "peer-a" {
		t.Errorf("ID: got %s, want peer-a", got)
	}
}
