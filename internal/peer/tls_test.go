package peer_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"quorumbox/internal/peer"
)

// newTLSRecorder starts a recorder behind TLS and returns the pool that its certificate verifies against.
func newTLSRecorder(tb testing.TB, config *tls.Config) (*recorder, *x509.CertPool) {
	tb.Helper()
	rec := unstartedRecorder(answerOK)
	rec.TLS = config
	rec.EnableHTTP2 = true // what a peer offers; the client does not take it
	rec.Config.ErrorLog = log.New(tb.Output(), "", 0)
	rec.StartTLS()
	tb.Cleanup(rec.Close)
	pool := x509.NewCertPool()
	pool.AddCert(rec.Certificate())
	return rec, pool
}

func TestTLS(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		server *tls.Config
		trust  bool
		url    func(url string) string
		class  peer.Class
		text   string
	}{
		{"ack", &tls.Config{}, true, nil, peer.ClassOK, ""},
		{"unknown authority", &tls.Config{}, false, nil, peer.ClassTLS, "network: the peer's certificate is not valid for it"},
		{
			"wrong name",
			&tls.Config{},
			true,
			func(url string) string { return strings.Replace(url, "127.0.0.1", "localhost", 1) },
			peer.ClassTLS, "network: the peer's certificate is not valid for it",
		},
		{"TLS 1.2 only", &tls.Config{MaxVersion: tls.VersionTLS12}, true, nil, peer.ClassTLS, "network: the TLS handshake failed"}, //nolint:gosec // G402: the version that is refused.
		{
			"plain request to a TLS port",
			&tls.Config{},
			true,
			func(url string) string { return strings.Replace(url, "https", "http", 1) },
			peer.ClassTLS, "http 400 Bad Request: the peer speaks TLS and the url says http",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rec, pool := newTLSRecorder(t, test.server)
			url := rec.URL
			if test.url != nil {
				url = test.url(url)
			}
			client := newClient(t, url, signed, func(cfg *peer.Config) {
				cfg.RootCAs = x509.NewCertPool()
				if test.trust {
					cfg.RootCAs = pool
				}
			})
			err := client.Post(testContext(t), peer.Request{Body: body()})
			e := classified(t, err, test.class, test.class.Outcome())
			if e == nil {
				verify(t, rec.all()[0])
				return
			}
			if e.Error() != test.text {
				t.Errorf("text: got %q, want %q", e, test.text)
			}
			if !e.Class.Configuration() {
				t.Error("it is no matter of configuration")
			}
			if got := len(rec.all()); got != 0 {
				t.Errorf("requests: got %d, want 0", got)
			}
		})
	}
}

// TestClientCertificateIsRefused allows for a connection that is reset before the alert could be read: the peer closes while our
// request is on its way.
func TestClientCertificateIsRefused(t *testing.T) {
	t.Parallel()
	rec, pool := newTLSRecorder(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert})
	client := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.RootCAs = pool })
	ctx := testContext(t)
	for {
		err := client.Post(ctx, peer.Request{Body: body()})
		if peer.ClassOf(err) == peer.ClassConnectionLost {
			continue
		}
		e := classified(t, err, peer.ClassTLS, peer.Fail)
		if want := "network: the peer refuses the client certificate"; e.Error() != want {
			t.Errorf("text: got %q, want %q", e, want)
		}
		break
	}
	if got := len(rec.all()); got != 0 {
		t.Errorf("requests: got %d, want 0", got)
	}
}

func TestTLSToAPlainPort(t *testing.T) {
	t.Parallel()
	rec := unstartedRecorder(answerOK)
	rec.Config.ErrorLog = log.New(t.Output(), "", 0)
	rec.Start()
	t.Cleanup(rec.Close)
	err := newClient(t, strings.Replace(rec.URL, "http", "https", 1)).Post(testContext(t), peer.Request{Body: body()})
	e := classified(t, err, peer.ClassTLS, peer.Fail)
	if want := "network: the peer does not speak TLS"; e.Error() != want {
		t.Errorf("text: got %q, want %q", e, want)
	}
}

func TestTLSHandshakeTimesOut(t *testing.T) {
	t.Parallel()
	silent := newSilentPeer(t)
	client := newClient(t, "https://"+silent, func(cfg *peer.Config) { cfg.ConnectTimeout = peer.DefaultConnectTimeout / 40 })
	err := client.Post(testContext(t), peer.Request{Body: body()})
	checkClass(t, err, peer.ClassConnectTimeout, peer.Fail)
}

// newSilentPeer returns the address of a listener that the kernel accepts for and that nobody serves.
func newSilentPeer(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener lives until its cleanup.
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// TestClientCertificateIsAskedForEachHandshake is what lets a certificate follow its file.
func TestClientCertificateIsAskedForEachHandshake(t *testing.T) {
	t.Parallel()
	rec, pool := newTLSRecorder(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert})
	own := rec.TLS.Certificates[0] // any certificate will do: the server does not verify it
	var asked atomic.Int64
	client := newClient(t, rec.URL, func(cfg *peer.Config) {
		cfg.RootCAs = pool
		cfg.ClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked.Add(1)
			return &own, nil
		}
	})
	for range 2 {
		if err := client.Post(testContext(t), peer.Request{Body: body()}); err != nil {
			t.Fatalf("Post: %v", err)
		}
		client.CloseIdle()
	}
	if got := asked.Load(); got != 2 {
		t.Errorf("asked %d times, want 2", got)
	}
}

// TestHTTP1Only holds the documented decision against HTTP/2, which the peer offers.
func TestHTTP1Only(t *testing.T) {
	t.Parallel()
	rec, pool := newTLSRecorder(t, &tls.Config{})
	var proto atomic.Value
	inner := rec.Config.Handler
	rec.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		inner.ServeHTTP(w, r)
	})
	client := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.RootCAs = pool })
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	if err := client.Post(ctx, peer.Request{Body: body()}); err != nil {
		t.Fatalf("Post: %v", err)
	}
	if got := proto.Load(); got != "HTTP/1.1" {
		t.Errorf("protocol: got %v, want HTTP/1.1", got)
	}
}
