package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quorumbox/internal/config"
)

// fileRefusals are those of the certificate files; that they exist is not looked at here.
func fileRefusals() []refusal {
	return []refusal{
		{name: "client certificate without key", file: peerWith("client_cert_file: /f"), want: []string{"peers[0] has one of client_cert_file and client_key_file"}},
		{name: "client key without certificate", file: peerWith("client_key_file: /f"), want: []string{"set both or neither"}},
		{name: "client certificate for http", file: "peers: [{id: a, url: 'HTTP://a.example', client_cert_file: /f, client_key_file: /f}]", want: []string{"peers[0] has certificate files", "want https://"}},
		{name: "authorities for http", file: "peers: [{id: a, url: 'http://a.example', ca_file: /f}]", want: []string{"peers[0] has certificate files"}},
	}
}

// issueCertificate returns a self-signed certificate and its key, in PEM.
func issueCertificate(tb testing.TB, name string) (cert, key string) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	return sign(tb, template, private)
}

// sign returns a certificate that its own key signs, and the key, in PEM.
func sign(tb testing.TB, template *x509.Certificate, private *ecdsa.PrivateKey) (cert, key string) {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		tb.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// replace puts a file into place as certificate managers do: by renaming.
func replace(tb testing.TB, path, text string, mode os.FileMode) string {
	tb.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Checklist row 84: files that are missing or bad are found at the start.
func TestClientCertificateRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := issueCertificate(t, "a")
	_, other := issueCertificate(t, "b")
	file := func(name, text string, mode os.FileMode) string {
		return replace(t, filepath.Join(dir, name), text, mode)
	}
	goodCert, goodKey := file("cert", cert, 0o644), file("key", key, 0o600)
	tests := []struct{ name, cert, key, want string }{
		{"missing certificate", filepath.Join(dir, "none"), goodKey, "client_cert_file: open"},
		{"missing key", goodCert, filepath.Join(dir, "none"), "client_key_file: look at secret file"},
		{"key that others may read", goodCert, file("open", key, 0o644), "client_key_file: "},
		{"key of another certificate", goodCert, file("other", other, 0o600), "does not match"},
		{"certificate that is a key", goodKey, goodKey, "client_cert_file"},
		{"certificate that is no PEM", file("text", "hello", 0o644), goodKey, "client_cert_file"},
		{"certificate that is cut", file("cut", strings.Replace(cert, "MII", "MIX", 1), 0o644), goodKey, "client_cert_file"},
		{"folder", dir, goodKey, "client_cert_file"},
		{"very large", file("large", strings.Repeat("x", 1<<20+1), 0o644), goodKey, "larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Peer{ClientCertFile: tt.cert, ClientKeyFile: tt.key}.NewClientCertificate(nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	if got, err := (config.Peer{}).NewClientCertificate(nil); got != nil || err != nil {
		t.Errorf("none set: got %v, %v, want none", got, err)
	}
}

func TestRootCAs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, key := issueCertificate(t, "a")
	second, _ := issueCertificate(t, "b")
	tests := []struct{ name, text, want string }{
		{"one", first, ""},
		{"two with comments", "# a\n" + first + "\n# b\n" + second, ""},
		{"empty", "", "holds no certificate"},
		{"no PEM", "hello", "holds no certificate"},
		{"with a key", first + key, `holds a "PRIVATE KEY"`},
		{"certificate that is cut", first + strings.Replace(second, "MII", "MIX", 1), "certificate 2 of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := replace(t, filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-")), tt.text, 0o644)
			pool, err := config.Peer{CAFile: path}.RootCAs()
			if tt.want == "" && (err != nil || pool == nil) {
				t.Errorf("got %v, want a pool", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), "ca_file: ") || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := (config.Peer{CAFile: filepath.Join(dir, "none")}).RootCAs(); err == nil {
		t.Error("missing file: got no error")
	}
	if pool, err := (config.Peer{}).RootCAs(); pool != nil || err != nil {
		t.Errorf("none set: got %v, %v, want none", pool, err)
	}
}

// A renewed certificate is shown at the next handshake. Until its key is there too the old one is, and that is told once.
func TestClientCertificateFollowsItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert1, key1 := issueCertificate(t, "first")
	cert2, key2 := issueCertificate(t, "second")
	p := config.Peer{
		ClientCertFile: replace(t, filepath.Join(dir, "cert"), cert1, 0o644),
		ClientKeyFile:  replace(t, filepath.Join(dir, "key"), key1, 0o600),
	}
	var mu sync.Mutex
	var warnings []string
	certificate, err := p.NewClientCertificate(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, err.Error())
	})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when, want string, wantWarnings int) {
		t.Helper()
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				got, err := certificate.Get(nil)
				if err != nil || got.Leaf.Subject.CommonName != want {
					t.Errorf("%s: got %v, %v, want %s", when, got.Leaf.Subject, err, want)
				}
			})
		}
		calls.Wait()
		if len(warnings) != wantWarnings {
			t.Errorf("%s: got %d warnings, want %d: %v", when, len(warnings), wantWarnings, warnings)
		}
	}
	expect("at the start", "first", 0)
	replace(t, p.ClientCertFile, cert2, 0o644)
	expect("with half of the new pair", "first", 1)
	replace(t, p.ClientKeyFile, key2, 0o600)
	expect("with the new pair", "second", 1)
	if err := os.Remove(p.ClientKeyFile); err != nil {
		t.Fatal(err)
	}
	expect("without a key", "second", 2)
	replace(t, p.ClientKeyFile, key1, 0o600)
	expect("with a key of another", "second", 3)
	replace(t, p.ClientCertFile, cert1, 0o644)
	expect("with the first pair", "first", 3)
	if err := os.Chmod(p.ClientKeyFile, 0o640); err != nil { //nolint:gosec // G302: the case itself
		t.Fatal(err)
	}
	expect("with a key that others may read", "first", 4)
}
