package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quorumbox/internal/config"
	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
)

// receiver is a peer that answers everything alike and keeps the headers of the last request.
type receiver struct {
	*httptest.Server
	requests atomic.Int64
	header   atomic.Pointer[http.Header]
}

func newReceiver(t *testing.T, answer string) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		r.requests.Add(1)
		r.header.Store(&req.Header)
		_, _ = io.WriteString(w, answer)
	}))
	r.Config.ErrorLog = log.New(t.Output(), "", 0)
	t.Cleanup(r.Close)
	return r
}

// peersOf returns the clients of a settings file, and the warnings so far.
func peersOf(t *testing.T, yaml string) (clients map[string]*peer.Client, warnings *[]string) {
	t.Helper()
	cfg, err := config.Load(configFile(t, "", "sender_id: host:test\n"+yaml), nil)
	if err != nil {
		t.Fatal(err)
	}
	warnings = &[]string{}
	clients, err = newPeers(cfg, func(warning error) { *warnings = append(*warnings, warning.Error()) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		t.Cleanup(c.CloseIdle)
	}
	return clients, warnings
}

func push(t *testing.T, c *peer.Client) error {
	t.Helper()
	message := peer.Message{Memories: []json.RawMessage{json.RawMessage(`{"id":"m"}`)}}
	return c.Post(t.Context(), peer.Request{Body: message.Encode("host:test")})
}

const answerOK = `{"applied":1}`

func peerLine(id, url, more string) string {
	return fmt.Sprintf("  - {id: %s, url: %q, allow: [127.0.0.0/8, \"::1/128\"]%s}\n", id, url, more)
}

// Checklist rows 14 and 15: a refused host gets no connection, the reason names it, and the others are sent to.
func TestPeersOutboundRules(t *testing.T) {
	t.Parallel()
	good, bad := newReceiver(t, answerOK), newReceiver(t, answerOK)
	good.Start()
	bad.Start()
	byName := strings.Replace(bad.URL, "127.0.0.1", "LocalHost.", 1)
	clients, _ := peersOf(t, "peers:\n"+peerLine("good", good.URL, "")+peerLine("bad", byName, "")+
		"outbound: {rules: [{action: deny, host: 'local*', reason: names are not for us}]}\n")
	if err := push(t, clients["good"]); err != nil {
		t.Errorf("good: %v", err)
	}
	e, ok := errors.AsType[*peer.Error](push(t, clients["bad"]))
	if !ok || e.Class != peer.ClassBlocked || !strings.Contains(e.Error(), "governance refused outbound to LocalHost.: names are not for us") {
		t.Errorf("bad: got %v, want a refusal that names the host", e)
	}
	if got := bad.requests.Load(); got != 0 {
		t.Errorf("the refused peer saw %d requests", got)
	}
}

// Checklist row 16: only lenient_acks takes an answer that cannot be parsed.
func TestPeersLenientAcks(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, "not json")
	r.Start()
	for _, lenient := range []bool{false, true} {
		clients, _ := peersOf(t, fmt.Sprintf("lenient_acks: %t\npeers:\n%s", lenient, peerLine("a", r.URL, "")))
		if err := push(t, clients["a"]); (err == nil) != lenient {
			t.Errorf("lenient_acks %t: got %v", lenient, err)
		}
	}
}

// Checklist row 13, the wiring: a rotated credential is sent with the very next push; one that is gone is warned about once.
func TestPeersCredential(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "seed"), private.Seed())
	issue := func(domain string) string {
		now := time.Now().UTC().Truncate(time.Second)
		credential, err := identity.Issue(private, identity.Claims{
			CredVersion: 1, IssuerID: "root", SubjectAgentID: "host:test", SubjectKey: public, TrustDomain: domain,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "cred"), []byte(credential.Header()+"\n"))
		return credential.Header()
	}
	first := issue("one.example")
	r := newReceiver(t, answerOK)
	r.Start()
	clients, warnings := peersOf(t, fmt.Sprintf("signing_key_file: %s\ncredential_file: %s\npeers:\n%s",
		filepath.Join(dir, "seed"), filepath.Join(dir, "cred"), peerLine("a", r.URL, "")))
	expect := func(when, want string, wantWarnings int) {
		t.Helper()
		if err := push(t, clients["a"]); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if got := r.header.Load().Get("X-Memory-Cred"); got != want {
			t.Errorf("%s: got credential %q, want %q", when, got, want)
		}
		if len(*warnings) != wantWarnings {
			t.Errorf("%s: got warnings %q, want %d", when, *warnings, wantWarnings)
		}
	}
	expect("at the start", first, 0)
	expect("rotated", issue("another.example"), 0)
	if err := os.Remove(filepath.Join(dir, "cred")); err != nil {
		t.Fatal(err)
	}
	expect("gone", "", 1)
	expect("still gone", "", 1)
}

// Checklist row 84: a client certificate and an authority of one's own.
func TestPeersMutualTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver(t, answerOK)
	r.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	r.StartTLS()
	for name, block := range map[string]*pem.Block{
		"cert": {Type: "CERTIFICATE", Bytes: der},
		"key":  {Type: "PRIVATE KEY", Bytes: pkcs8},
		"ca":   {Type: "CERTIFICATE", Bytes: r.Certificate().Raw},
	} {
		writeFile(t, filepath.Join(dir, name), pem.EncodeToMemory(block))
	}
	files := func(format string) string { return strings.ReplaceAll(format, "DIR", dir) }
	clients, _ := peersOf(t, "peers:\n"+peerLine("both", r.URL, files(", ca_file: DIR/ca, client_cert_file: DIR/cert, client_key_file: DIR/key")))
	if err := push(t, clients["both"]); err != nil {
		t.Errorf("with certificate and authority: %v", err)
	}
	for name, settings := range map[string]string{
		"without a certificate":         ", ca_file: DIR/ca",
		"with the system's authorities": ", client_cert_file: DIR/cert, client_key_file: DIR/key",
	} {
		clients, _ := peersOf(t, "peers:\n"+peerLine("a", r.URL, files(settings)))
		// In TLS 1.3 the client has finished its handshake before the peer refuses its certificate: the write can meet a closed connection before
		// the alert is read.
		err := push(t, clients["a"])
		for peer.ClassOf(err) == peer.ClassConnectionLost {
			err = push(t, clients["a"])
		}
		if got := peer.ClassOf(err); got != peer.ClassTLS {
			t.Errorf("%s: got %v of class %s, want %s", name, err, got, peer.ClassTLS)
		}
	}
}

// writeFile puts a file into place by renaming, readable for nobody else.
func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
