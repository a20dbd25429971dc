package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"

	"quorumbox/internal/follow"
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

// NewRootCAs returns the authorities in CAFile, following the file; nil if none is set. warn is told, once for each change, when a file that
// changed cannot be used, and the last ones hold on; it must be safe for concurrent use.
func (p Peer) NewRootCAs(warn func(error)) (*follow.Files[*x509.CertPool], error) {
	if p.CAFile == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	return follow.New(p.RootCAs, func(err error) {
		warn(fmt.Errorf("the changed authorities cannot be used, going on with the last ones: %w", err))
	}, p.CAFile)
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
	files *follow.Files[*tls.Certificate]
}

// NewClientCertificate returns the certificate in ClientCertFile and ClientKeyFile, nil if none are set. The key must be in a file
// that [secret.ReadRaw] takes. warn is told, once for each change, when files that changed cannot be used; it must be safe for
// concurrent use.
func (p Peer) NewClientCertificate(warn func(error)) (*ClientCertificate, error) {
	if p.ClientCertFile == "" || p.ClientKeyFile == "" { // one alone is refused by Validate
		return nil, nil //nolint:nilnil // none is no error
	}
	files, err := certificateFiles{
		what: "client certificate", certKey: "client_cert_file", keyKey: "client_key_file", cert: p.ClientCertFile, key: p.ClientKeyFile,
	}.follow(warn)
	if err != nil {
		return nil, err
	}
	return &ClientCertificate{files}, nil
}

// Get returns the certificate as [tls.Config.GetClientCertificate] wants it. It looks at the files and reads them if they changed
// since the last call. While they cannot be used (a new certificate is there and its key not yet), it goes on with the last
// ones that could. It never returns an error.
func (c *ClientCertificate) Get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return c.files.Get(), nil
}

// certificateFiles are a certificate and its private key, with the settings that name them.
type certificateFiles struct {
	what            string // it is, in a warning
	certKey, keyKey string // the settings
	cert, key       string // their values
}

// follow reads the files, and again when they change.
func (f certificateFiles) follow(warn func(error)) (*follow.Files[*tls.Certificate], error) {
	return follow.New(f.load, func(err error) {
		warn(fmt.Errorf("the changed %s cannot be used, going on with the last one: %w", f.what, err))
	}, f.cert, f.key)
}

// load reads the files.
func (f certificateFiles) load() (*tls.Certificate, error) {
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
