package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/config"
)

// serverCertificate makes the files of a listener's certificate; change makes it an odd one.
func serverCertificate(t *testing.T, dir, name string, change func(*x509.Certificate)) config.Admin {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	cert, key := sign(t, template, private)
	return config.Admin{
		TLSCertFile: replace(t, filepath.Join(dir, "cert.pem"), cert, 0o644), TLSKeyFile: replace(t, filepath.Join(dir, "key.pem"), key, 0o600),
	}
}

// handshake lets a probe speak to a listener, and returns for which name its certificate is.
func handshake(t *testing.T, server *config.ServerCertificate, probe *tls.Config) (name string, err error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() {
		_ = tls.Server(far, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: server.Get, SessionTicketsDisabled: true}).HandshakeContext(t.Context())
	}()
	client := tls.Client(near, probe)
	if err := client.HandshakeContext(t.Context()); err != nil {
		return "", err
	}
	return client.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// A listener's certificate follows its files, and so does the probe of the same machine, whatever the certificate is for.
func TestServerCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	admin := serverCertificate(t, dir, "first.example", nil)
	var warnings []error
	server, err := admin.NewServerCertificate(func(err error) { warnings = append(warnings, err) })
	if err != nil {
		t.Fatal(err)
	}
	shows := func(want string) {
		t.Helper()
		probe, err := admin.ProbeTLS()
		if err != nil {
			t.Fatal(err)
		}
		if name, err := handshake(t, server, probe); err != nil || name != want {
			t.Errorf("got %q, %v, want %q", name, err, want)
		}
	}
	shows("first.example")
	for name, change := range map[string]func(*x509.Certificate){
		"second.example": nil,
		"*.wild.example": nil,
		"address":        func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(192, 0, 2, 1)} },
		"expired":        func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"authority":      func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
	} {
		serverCertificate(t, dir, name, change)
		shows(name)
	}
	serverCertificate(t, dir, "last.example", nil)
	shows("last.example")
	other := serverCertificate(t, t.TempDir(), "last.example", nil)
	probe, err := other.ProbeTLS()
	if err != nil {
		t.Fatal(err)
	}
	if name, err := handshake(t, server, probe); err == nil {
		t.Errorf("a probe that expects another certificate of that name takes %q", name)
	}
	replace(t, admin.TLSKeyFile, "no key", 0o600)
	if _, err := server.Get(nil); err != nil {
		t.Errorf("got %v, want the last certificate", err)
	}
	if len(warnings) == 0 || !strings.Contains(warnings[len(warnings)-1].Error(), "the changed certificate of the admin listener cannot be used") ||
		!strings.Contains(warnings[len(warnings)-1].Error(), "admin.tls_") {
		t.Errorf("got warnings %v, want one that names the setting", warnings)
	}
}

func TestServerCertificateRefuses(t *testing.T) {
	t.Parallel()
	good := serverCertificate(t, t.TempDir(), "a.example", nil)
	none := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name  string
		admin config.Admin
		want  string
	}{
		{"no certificate", config.Admin{TLSCertFile: none, TLSKeyFile: good.TLSKeyFile}, "admin.tls_cert_file: open"},
		{"no key", config.Admin{TLSCertFile: good.TLSCertFile, TLSKeyFile: none}, "admin.tls_key_file: look at secret file"},
		{"key as certificate", config.Admin{TLSCertFile: good.TLSKeyFile, TLSKeyFile: good.TLSKeyFile}, "admin.tls_cert_file"},
	} {
		_, err := tt.admin.NewServerCertificate(nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if got, err := (config.Admin{}).NewServerCertificate(nil); got != nil || err != nil {
		t.Errorf("none set: got %v, %v, want none", got, err)
	}
	nameless := serverCertificate(t, t.TempDir(), "x", func(c *x509.Certificate) { c.DNSNames = nil })
	for path, want := range map[string]string{
		none: "no such file", good.TLSKeyFile: "does not begin with a certificate", nameless.TLSCertFile: "for no name and no address", "": "",
		replace(t, filepath.Join(t.TempDir(), "cut"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o644): "malformed certificate",
	} {
		got, err := config.Admin{TLSCertFile: path}.ProbeTLS()
		if want == "" && (got != nil || err != nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("probe with %q: got %v, want %q", path, err, want)
		}
	}
}
