package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/config"
	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
)

// A changed api key and signing key are used at the very next push. A bad one is warned of once, and the last good one goes on.
func TestPeersFollowTheirKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, content)
		return path
	}
	newKey := func() (ed25519.PublicKey, []byte) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return public, private.Seed()
	}
	public, seed := newKey()
	r, own := newReceiver(t, answerOK), newReceiver(t, answerOK)
	r.Start()
	own.Start()
	clients, warnings := peersOf(t, fmt.Sprintf("signing_key_file: %s\napi_key_file: %s\npeers:\n%s",
		put("key.priv", seed), put("api-key", []byte("first\n")), peerLine("a", r.URL, "")+peerLine("own", own.URL, ", api_key_file: "+put("own-key", []byte("own")))))
	expect := func(when, apiKey string, signer ed25519.PublicKey, warned ...string) {
		t.Helper()
		message := peer.Message{}.Encode("host:test")
		for range 2 {
			if err := clients["a"].Post(t.Context(), peer.Request{Body: message}); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			h := *r.header.Load()
			if got := h.Get("X-Api-Key"); got != apiKey {
				t.Errorf("%s: got api key %q, want %q", when, got, apiKey)
			}
			signature, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.Get("X-Memory-Sig"), "ed25519="))
			signed := append(append(append([]byte{}, message...), 0), h.Get("X-Memory-Nonce")...)
			if !ed25519.Verify(signer, signed, signature) {
				t.Errorf("%s: signed by another key", when)
			}
		}
		if len(*warnings) != len(warned) {
			t.Fatalf("%s: got warnings %q, want %d", when, *warnings, len(warned))
		}
		for i, want := range warned {
			if got := (*warnings)[i]; !strings.Contains(got, want) {
				t.Errorf("%s: got warning %q, want %q", when, got, want)
			}
		}
	}
	expect("at the start", "first", public)
	put("api-key", []byte("second"))
	expect("another api key", "second", public)
	next, seed := newKey()
	put("key.priv", seed)
	expect("another signing key", "second", next)
	put("api-key", []byte("third "))
	expect("an api key that no header can carry", "second", next, "api_key_file: the changed file cannot be used, going on with the last secret")
	last, seed := newKey()
	put("key.priv", seed[:31])
	expect("half a signing key", "second", next, "api_key_file", "the changed signing_key_file cannot be used, going on with the last key: signing key: ")
	put("key.pub", last)
	put("key.priv", seed)
	put("api-key", []byte("fourth"))
	expect("all good", "fourth", last, "api_key_file", "signing_key_file")
	for _, want := range []string{"own", "own again"} {
		put("own-key", []byte(want))
		if err := push(t, clients["own"]); err != nil || own.header.Load().Get("X-Api-Key") != want {
			t.Errorf("a peer's own api key: got %q, %v, want %q", own.header.Load().Get("X-Api-Key"), err, want)
		}
	}
	for _, warning := range *warnings {
		if strings.Contains(warning, "third") {
			t.Errorf("the warning shows the key: %s", warning)
		}
	}
}

// A credential goes only with a push that its key signs, at whatever moment the two files are replaced.
func TestPeersCredentialFollowsTheKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := func() (seed []byte, credential string) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().UTC().Truncate(time.Second)
		issued, err := identity.Issue(private, identity.Claims{
			CredVersion: 1, IssuerID: "root", SubjectAgentID: "host:test", SubjectKey: public, TrustDomain: "one.example",
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		return private.Seed(), issued.Header()
	}
	seed, credential := files()
	writeFile(t, filepath.Join(dir, "seed"), seed)
	writeFile(t, filepath.Join(dir, "cred"), []byte(credential))
	r := newReceiver(t, answerOK)
	r.Start()
	clients, warnings := peersOf(t, fmt.Sprintf("signing_key_file: %s\ncredential_file: %s\npeers:\n%s",
		filepath.Join(dir, "seed"), filepath.Join(dir, "cred"), peerLine("a", r.URL, "")))
	expect := func(when, want string) {
		t.Helper()
		if err := push(t, clients["a"]); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if got := r.header.Load().Get("X-Memory-Cred"); got != want {
			t.Errorf("%s: got credential %q, want %q", when, got, want)
		}
	}
	expect("at the start", credential)
	seed, next := files()
	writeFile(t, filepath.Join(dir, "seed"), seed)
	expect("with the old credential and the new key", "")
	writeFile(t, filepath.Join(dir, "cred"), []byte(next))
	expect("with both new", next)
	if len(*warnings) != 1 || !strings.Contains((*warnings)[0], "another key") {
		t.Errorf("got warnings %q, want the one of the old credential", *warnings)
	}
}

// Authorities that changed hold for the next handshake, connections that stand go on.
func TestPeersFollowTheirAuthorities(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	r := newReceiver(t, answerOK)
	r.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	r.StartTLS()
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})
	other := authority(t)
	writeFile(t, ca, other)
	clients, warnings := peersOf(t, "peers:\n"+peerLine("a", r.URL, ", ca_file: "+ca))
	expect := func(when string, want peer.Class, warned int) {
		t.Helper()
		if got := peer.ClassOf(push(t, clients["a"])); got != want {
			t.Errorf("%s: got class %q, want %q", when, got, want)
		}
		if len(*warnings) != warned {
			t.Errorf("%s: got warnings %q, want %d", when, *warnings, warned)
		}
	}
	expect("with another authority", peer.ClassTLS, 0)
	writeFile(t, ca, good)
	expect("with its own", peer.ClassOK, 0)
	writeFile(t, ca, []byte("no certificate"))
	expect("with a bad file and a connection", peer.ClassOK, 0)
	clients["a"].CloseIdle()
	expect("with a bad file and a new connection", peer.ClassOK, 1)
	writeFile(t, ca, other)
	clients["a"].CloseIdle()
	expect("with another one again", peer.ClassTLS, 1)
}

// authority is a certificate that vouches for nobody here, in PEM.
func authority(t *testing.T) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// New connections are made with the password that the file holds then.
func TestPoolFollowsItsFile(t *testing.T) {
	t.Parallel()
	ctx := context.WithoutCancel(t.Context()) // for the clean-up, too
	owner, err := pgx.Connect(ctx, pgtest.EmptyURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(ctx) })
	role := "rotating_" + strings.ToLower(rand.Text()[:8])
	setPassword := func(verb, password string) {
		t.Helper()
		if _, err := owner.Exec(ctx, fmt.Sprintf(`%s role %s login password '%s'`, verb, role, password)); err != nil {
			t.Fatal(err)
		}
	}
	setPassword("create", "first")
	t.Cleanup(func() { _, _ = owner.Exec(ctx, `drop role `+role) })
	base := owner.Config()
	file := filepath.Join(t.TempDir(), "url")
	putURL := func(password string) {
		u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: fmt.Sprintf("%s:%d", base.Host, base.Port), Path: base.Database}
		writeFile(t, file, []byte(u.String()))
	}
	putURL("first")
	var warned []string
	pool, err := openFollowingPool(ctx, config.Database{URLFile: file, MaxConns: 4}, "test", func(err error) { warned = append(warned, err.Error()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	connects := func(when string, want bool) {
		t.Helper()
		pool.Reset() // no connection is used again
		if err := pool.Ping(ctx); (err == nil) != want {
			t.Errorf("%s: got %v, want success %t", when, err, want)
		}
	}
	connects("at the start", true)
	setPassword("alter", "second")
	connects("with a password that was changed", false)
	putURL("second")
	connects("with the changed one in the file", true)
	writeFile(t, file, []byte("postgres://u:hunter2@host:port/x"))
	connects("with a bad file", true)
	if len(warned) != 1 || !strings.Contains(warned[0], "the changed database.url_file cannot be used") || strings.Contains(warned[0], "hunter2") {
		t.Errorf("got warnings %q, want one without the password", warned)
	}
	if got := pool.Config().ConnConfig.RuntimeParams["application_name"]; got != "test" {
		t.Errorf("got application_name %q, want test", got)
	}
}
