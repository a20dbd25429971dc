package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"quorumbox/internal/secret"
)

// maxPEMBytes bounds a file of certificates; a system's whole list of authorities is about 250 KiB.
const maxPEMBytes = 1 << 20

func (p *problems) checkPeerTLS(key string, peer Peer) {
	if (peer.ClientCertFile == "") != (peer.ClientKeyFile == "") {
		p.addf("%s has one of client_cert_file and client_key_file: set both or neither", key)
	}
	uses := peer.ClientCertFile != "" || peer.ClientKeyFile != "" || peer.CAFile != ""
	if uses && strings.HasPrefix(strings.ToLower(peer.URL), "http://") {
		p.addf("%s has certificate files and a url that is http://: want https://, or remove the files", key)
	}
}

// RootCAs returns the authorities in CAFile, nil if none is set. Everything in the file that is PEM must be a certificate, and there
// must be one.
func (p Peer) RootCAs() (*x509.CertPool, error) {
	if p.CAFile == "" {
		return nil, nil //nolint:nilnil // crypto/tls takes nil for the system's authorities
	}
	raw, err := readPEM(p.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool, count := x509.NewCertPool(), 0
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("ca_file: %s holds a %.40q: want certificates only", p.CAFile, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ca_file: certificate %d of %s: %w", count+1, p.CAFile, err)
		}
		pool.AddCert(cert)
		count++
	}
	if count == 0 {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", p.CAFile)
	}
	return pool, nil
}

// readPEM returns what is in a file that is no secret. Its errors name the file.
func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxPEMBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxPEMBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes: is it the file of certificates?", path, maxPEMBytes)
	}
	return raw, nil
}

// ClientCertificate is the certificate that a peer is shown, following its files. Make one with [Peer.NewClientCertificate]. It is
// safe for concurrent use and starts no goroutine.
type ClientCertificate struct {
	files   certificateFiles
	warn    func(error)
	current atomic.Pointer[loadedCertificate]
}

// certificateFiles are a certificate and its private key, with the settings that name them.
type certificateFiles struct {
	what            string // it is, in a warning
	certKey, keyKey string // the settings
	cert, key       string // their values
}

// loadedCertificate never changes.
type loadedCertificate struct {
	cert *tls.Certificate
	seen [2]os.FileInfo // the files when they were tried last, whether or not cert is from them
}

// NewClientCertificate returns the certificate in ClientCertFile and ClientKeyFile, nil if none are set. The key must be in a file
// that [secret.ReadRaw] takes. warn is told, once for each change, when files that changed cannot be used; it must be safe for
// concurrent use.
func (p Peer) NewClientCertificate(warn func(error)) (*ClientCertificate, error) {
	if p.ClientCertFile == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	return newCertificate(certificateFiles{
		what: "client certificate", certKey: "client_cert_file", keyKey: "client_key_file", cert: p.ClientCertFile, key: p.ClientKeyFile,
	}, warn)
}

func newCertificate(files certificateFiles, warn func(error)) (*ClientCertificate, error) {
	c := &ClientCertificate{files: files, warn: warn}
	seen := c.look()
	cert, err := c.load()
	if err != nil {
		return nil, err
	}
	c.current.Store(&loadedCertificate{cert: cert, seen: seen})
	return c, nil
}

// Get returns the certificate as [tls.Config.GetClientCertificate] wants it. It looks at the files and reads them if they changed
// since the last call. While they cannot be used (a new certificate is there and its key not yet), it goes on with the last
// ones that could. It never returns an error.
func (c *ClientCertificate) Get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	last, seen := c.current.Load(), c.look()
	if unchanged(seen[0], last.seen[0]) && unchanged(seen[1], last.seen[1]) {
		return last.cert, nil
	}
	next := &loadedCertificate{cert: last.cert, seen: seen}
	cert, err := c.load()
	if err == nil {
		next.cert = cert
	}
	// Another handshake may have been quicker; then it has told what there is to tell.
	if c.current.CompareAndSwap(last, next) && err != nil {
		c.warn(fmt.Errorf("the changed %s cannot be used, going on with the last one: %w", c.files.what, err))
	}
	return next.cert, nil
}

// load reads the files.
func (c *ClientCertificate) load() (*tls.Certificate, error) {
	f := c.files
	certPEM, err := readPEM(f.cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.certKey, err)
	}
	keyPEM, err := secret.ReadRaw(f.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.keyKey, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s %s and %s %s: %w", f.certKey, f.cert, f.keyKey, f.key, err)
	}
	return &cert, nil
}

// look returns how the files are now, nil for one that is not there. It comes before reading, so that a change in between is seen
// the next time.
func (c *ClientCertificate) look() [2]os.FileInfo {
	var seen [2]os.FileInfo
	for i, path := range []string{c.files.cert, c.files.key} {
		if info, err := os.Stat(path); err == nil {
			seen[i] = info
		}
	}
	return seen
}

// unchanged reports whether a file is what it was: the same, neither written nor given other permissions since.
func unchanged(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}
