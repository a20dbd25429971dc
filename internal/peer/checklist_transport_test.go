package peer

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Checklist row 83. The connections of the reference stay idle for 300 s and ours for 90 s, so that a peer that moved is followed sooner;
// the time for a request is that of the caller's context. That of a handshake is held by TestTLSHandshakeTimesOut.
func TestTransportOfADefaultConfig(t *testing.T) {
	t.Parallel()
	type times struct{ Connect, Idle, KeepAlive, Answer time.Duration }
	cfg := Config{}.withDefaults()
	transport := newTransport(cfg)
	got := times{cfg.ConnectTimeout, transport.IdleConnTimeout, cfg.KeepAlive, transport.ResponseHeaderTimeout}
	want := times{Connect: 2 * time.Second, Idle: 90 * time.Second, KeepAlive: 60 * time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
	if transport.DisableKeepAlives || transport.MaxIdleConnsPerHost != transport.MaxConnsPerHost {
		t.Errorf("got %d idle connections of %d, want all kept", transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost)
	}
	if handshake := cfg.tlsConfig("a.example"); handshake.MinVersion != tls.VersionTLS13 || handshake.InsecureSkipVerify || handshake.ServerName != "a.example" {
		t.Error("TLS is older than 1.3, or certificates are not checked")
	}
}
