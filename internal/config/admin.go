package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"quorumbox/internal/follow"
)

// Admin is the operator's listener: health, status, metrics and job pages.
type Admin struct {
	// Listen is a host and port. A host that is not loopback needs a login. Empty: no listener.
	Listen string `koanf:"listen" doc:"address and port of health, status, metrics and job pages; an address that other machines can reach needs a login: token_file, or username and password_file; empty: off"`
	// TokenFile is the path of the bearer token that opens everything, with mode 0600. Empty: no token does.
	TokenFile string `koanf:"token_file" doc:"file with the bearer token that opens all pages, 16 or more characters, mode 0600; read again when it changes; empty: none"`
	// Username and PasswordFile are the login by basic authentication. Empty: there is none; set both or neither.
	Username     string `koanf:"username" doc:"user name for basic authentication, which browsers ask for; at most 128 characters without a colon; empty: none"`
	PasswordFile string `koanf:"password_file" doc:"file with the password of username, 8 or more characters, mode 0600; read again when it changes"`
	// MetricsTokenFile is the path of a bearer token that opens /metrics and nothing else. Set only beside a login.
	MetricsTokenFile string `koanf:"metrics_token_file" doc:"file with a bearer token that opens /metrics only, for Prometheus, 16 or more characters, mode 0600; read again when it changes; empty: none"`
	// TLSCertFile and TLSKeyFile make the listener speak TLS 1.3. Empty: it does not; set both or neither.
	TLSCertFile string `koanf:"tls_cert_file" doc:"PEM file with the listener's certificate and its intermediates; read again when it changes; empty: no TLS"`
	TLSKeyFile  string `koanf:"tls_key_file" doc:"PEM file with the private key of tls_cert_file, mode 0600; read again when it changes"`
}

// maxUsernameLength is the most bytes of [Admin.Username].
const maxUsernameLength = 128

// HasLogin reports whether the pages ask for a login.
func (a Admin) HasLogin() bool { return a.TokenFile != "" || a.Username != "" }

// ServerCertificate is the certificate that the admin listener shows, following its files. Make one with [Admin.NewServerCertificate]. It is safe for
// concurrent use and starts no goroutine.
type ServerCertificate struct {
	files *follow.Files[*tls.Certificate]
}

// NewServerCertificate returns the certificate in TLSCertFile and TLSKeyFile, nil if none are set; rules and warn are those of
// [Peer.NewClientCertificate].
func (a Admin) NewServerCertificate(warn func(error)) (*ServerCertificate, error) {
	if a.TLSCertFile == "" || a.TLSKeyFile == "" { // one alone is refused by Validate
		return nil, nil //nolint:nilnil // none is no error
	}
	files, err := certificateFiles{
		what: "certificate of the admin listener", certKey: "admin.tls_cert_file", keyKey: "admin.tls_key_file", cert: a.TLSCertFile, key: a.TLSKeyFile,
	}.follow(warn)
	if err != nil {
		return nil, err
	}
	return &ServerCertificate{files}, nil
}

// Get returns the certificate as [tls.Config.GetCertificate] wants it. It looks at the files as [ClientCertificate.Get] does, and never returns an error.
func (c *ServerCertificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.files.Get(), nil
}

// checkAdmin judges the listener, and that what other machines can reach asks for a login.
func (p *problems) checkAdmin(a Admin) {
	p.add(checkListen(a))
	if (a.Username == "") != (a.PasswordFile == "") {
		p.addf("admin has one of username and password_file: set both or neither")
	}
	if len(a.Username) > maxUsernameLength || strings.ContainsFunc(a.Username, func(r rune) bool { return r == ':' || unicode.IsControl(r) }) {
		p.addf("admin.username is %s: want at most %d characters without a colon and control characters", show(a.Username), maxUsernameLength)
	}
	if a.MetricsTokenFile != "" && !a.HasLogin() {
		p.addf("admin.metrics_token_file is set and there is no login, so /metrics is open without it: set admin.token_file, or admin.username and " +
			"admin.password_file, too, or remove it")
	}
	if a.MetricsTokenFile != "" && a.MetricsTokenFile == a.TokenFile {
		p.addf("admin.metrics_token_file and admin.token_file are the same file: a token for /metrics that opens everything is none; make another")
	}
	if (a.TLSCertFile == "") != (a.TLSKeyFile == "") {
		p.addf("admin has one of tls_cert_file and tls_key_file: set both or neither")
	}
}

// checkListen accepts every address where there is a login, and else loopback addresses only: what the pages show and do is not for everybody.
func checkListen(a Admin) error {
	if a.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil {
		return fmt.Errorf("admin.listen is %s: want host:port, such as 127.0.0.1:9080", show(a.Listen))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("admin.listen is %s: want a port from 0 to 65535", show(a.Listen))
	}
	addr, err := netip.ParseAddr(host)
	if a.HasLogin() || host == "localhost" || err == nil && addr.Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("admin.listen is %s, which other machines can reach, and there is no login: set admin.token_file, or admin.username and "+
		"admin.password_file, or use a loopback address such as 127.0.0.1:%s", show(a.Listen), port)
}

// ProbeTLS returns how a probe on the same machine speaks to the listener, nil if that has no TLS. The listener must show the certificate of TLSCertFile, and hold
// its key; for which names it is valid, and until when, is a matter of those who come from elsewhere.
func (a Admin) ProbeTLS() (*tls.Config, error) {
	if a.TLSCertFile == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	raw, err := readPEM(a.TLSCertFile)
	if err != nil {
		return nil, fmt.Errorf("admin.tls_cert_file: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("admin.tls_cert_file: %s does not begin with a certificate", a.TLSCertFile)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("admin.tls_cert_file: %s: %w", a.TLSCertFile, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), Time: func() time.Time { return leaf.NotAfter }}
	c.RootCAs.AddCert(leaf) // a certificate that is among the roots is trusted itself
	switch {
	case len(leaf.DNSNames) > 0:
		c.ServerName = strings.Replace(leaf.DNSNames[0], "*", "any", 1)
	case len(leaf.IPAddresses) > 0:
		c.ServerName = leaf.IPAddresses[0].String()
	default:
		return nil, fmt.Errorf("admin.tls_cert_file: the certificate in %s is for no name and no address", a.TLSCertFile)
	}
	return c, nil
}
