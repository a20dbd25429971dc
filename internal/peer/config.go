package peer

import (
	"cmp"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/secret"
)

// Defaults of [Config].
const (
	DefaultConnectTimeout = 2 * time.Second
	DefaultIdleTimeout    = 90 * time.Second
	DefaultKeepAlive      = 60 * time.Second
	DefaultMaxConns       = 64
	// DefaultTCPUserTimeout keeps the life of a request that was given up within the time after which a range in doubt is
	// pushed again (90 s): 10 s of request, 20 s of the kernel, 60 s of the peer.
	DefaultTCPUserTimeout = 20 * time.Second
)

// Config describes a peer and how to reach it. It prints without its secrets.
type Config struct {
	// ID is the peer's name in errors and metrics: 1..128 letters, digits and _ - : .
	ID string
	// URL is the base URL of the peer; see [ParseURL].
	URL string
	// SenderID goes into x-peer-id and must equal sender_agent_id of the bodies; see [CheckSenderID].
	SenderID string
	// SigningKey signs each request. Nil sends neither signature nor nonce.
	SigningKey ed25519.PrivateKey `json:"-"`
	// GetSigningKey, if set, takes the place of SigningKey and is called once for each attempt, so that a key that was rotated is used at
	// the very next one. An attempt is signed by one key, whose credential goes with it. It must always return a key (or always
	// none), and be quick and safe for concurrent use.
	GetSigningKey func() ed25519.PrivateKey `json:"-"`
	// Credential returns what to send as x-memory-cred and x-memory-cred-chain, "" for nothing: the whole header values. It is
	// asked for every attempt, so that a credential that was rotated is used at the very next request; hence it must be quick
	// and safe for concurrent use. Pushes of a bulk catch-up carry it too, other than the reference's, because a peer that
	// knows this sender by its credential alone could not verify their signature without it. A value that a header cannot
	// carry or of more than 8 KiB is left out, and the chain with its credential: peers fall back to the enrolled key. Peers
	// take a credential only with a signature by its subject key: it is told which key signs this attempt, nil for none. Nil sends none.
	Credential func(signer ed25519.PublicKey) (cred, chain string) `json:"-"`
	// APIKey is sent as x-api-key; see [CheckAPIKey]. The zero value sends no such header.
	APIKey secret.Secret
	// GetAPIKey, if set, takes the place of APIKey and is called for each request. It must return what [CheckAPIKey] takes, and be quick and
	// safe for concurrent use.
	GetAPIKey func() secret.Secret `json:"-"`
	// AllowNets are the networks that the peer may resolve to beside public addresses; see [Allowed].
	AllowNets []netip.Prefix
	// Gate is asked for each attempt, before name resolution, whether the scheme and host may be reached; an error refuses the
	// attempt and its text (made printable, cut at 200 bytes) becomes the reason, behind "governance refused outbound to
	// {host}: ". The host is that of the URL as it is written there, without port and brackets. A URL that cannot be parsed
	// never gets here, because [New] refuses it. Nil allows all. It must be safe for concurrent use.
	Gate func(scheme, host string) error `json:"-"`
	// LenientAcks takes a 2xx answer that is no JSON object for an acknowledgement. Defaults to the strict reading.
	LenientAcks LenientAcks
	// Observe is called at the end of each attempt, in the goroutine of the push and before it returns or pauses. It must be
	// quick and safe for concurrent use. Nil observes nothing.
	Observe func(Attempt) `json:"-"`
	// Tracer begins a span for each attempt of a push, of which the peer is told in the header traceparent: nothing else of the trace context is sent, neither
	// tracestate nor baggage. No signature covers the header, and receivers that do not know it ignore it. Nil begins no spans and sends no header.
	Tracer trace.Tracer `json:"-"`
	// RootCAs are the authorities that the peer's certificate is checked against. Nil means those of the system.
	RootCAs *x509.CertPool `json:"-"`
	// GetRootCAs, if set, takes the place of RootCAs and is called for each handshake. It must be quick and safe for concurrent use.
	GetRootCAs func() *x509.CertPool `json:"-"`
	// ClientCertificate returns the certificate for mutual TLS and is called for each handshake, so that it can follow a
	// changed file. Nil presents none.
	ClientCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error) `json:"-"`

	// ConnectTimeout bounds name resolution plus TCP connect, and the TLS handshake after it. Defaults to 2s.
	ConnectTimeout time.Duration
	// IdleTimeout closes unused connections; it is also how soon a peer that moved to another address is followed.
	// Defaults to 90s.
	IdleTimeout time.Duration
	// KeepAlive is the idle time before TCP keep-alive probes. Defaults to 60s.
	KeepAlive time.Duration
	// MaxConns bounds the connections to the peer, and so the requests at a time; more wait within their deadline.
	// Defaults to 64.
	MaxConns int
	// TCPUserTimeout bounds how long the kernel goes on sending after a connection went silent or a request was given up
	// (Linux only). At least 1ms. Defaults to 20s.
	TCPUserTimeout time.Duration
}

// LenientAcks says how to read a complete 2xx answer whose body is no JSON object. If true it is an acknowledgement, which is
// how the reference sender has it; peers behind a proxy that replaces bodies can need that. If false, the default, it is
// [ClassMalformedAnswer], because such an answer may come from something that is no peer. All else is read strictly in
// both cases: a skipped item is never an acknowledgement, and neither is an answer that was cut, compressed or too long.
type LenientAcks bool

func (cfg Config) withDefaults() Config {
	if key := cfg.SigningKey; cfg.GetSigningKey == nil {
		cfg.GetSigningKey = func() ed25519.PrivateKey { return key }
	}
	if key := cfg.APIKey; cfg.GetAPIKey == nil {
		cfg.GetAPIKey = func() secret.Secret { return key }
	}
	if pool := cfg.RootCAs; cfg.GetRootCAs == nil {
		cfg.GetRootCAs = func() *x509.CertPool { return pool }
	}
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, DefaultConnectTimeout)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout)
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, DefaultKeepAlive)
	cfg.MaxConns = cmp.Or(cfg.MaxConns, DefaultMaxConns)
	cfg.TCPUserTimeout = cmp.Or(cfg.TCPUserTimeout, DefaultTCPUserTimeout)
	return cfg
}

// check returns all that is wrong with the configuration, the URL apart.
func (cfg Config) check() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if cfg.ID == "" || len(cfg.ID) > maxIDBytes ||
		strings.Trim(cfg.ID, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:.") != "" {
		add("id must be 1..%d letters, digits and _ - : .", maxIDBytes)
	}
	if err := CheckSenderID(cfg.SenderID); err != nil {
		problems = append(problems, err)
	}
	if key := cfg.GetSigningKey(); len(key) != 0 && len(key) != ed25519.PrivateKeySize {
		add("signing key has %d bytes: an Ed25519 private key has %d", len(key), ed25519.PrivateKeySize)
	}
	if err := CheckAPIKey(cfg.GetAPIKey()); err != nil {
		problems = append(problems, err)
	}
	for _, prefix := range cfg.AllowNets {
		if !prefix.IsValid() {
			add("allow holds an invalid network: write it as address/bits")
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"connect timeout", cfg.ConnectTimeout},
		{"idle timeout", cfg.IdleTimeout},
		{"keep-alive", cfg.KeepAlive},
		{"tcp user timeout", cfg.TCPUserTimeout},
	} {
		if d.value < time.Millisecond {
			add("%s is %s: it must be at least 1ms", d.name, d.value)
		}
	}
	if cfg.MaxConns < 1 {
		add("max conns is %d: it must be at least 1", cfg.MaxConns)
	}
	return errors.Join(problems...)
}

// Format implements [fmt.Formatter]: the id alone, for every verb, because the struct holds a private key.
func (cfg Config) Format(state fmt.State, _ rune) { _, _ = fmt.Fprintf(state, "peer %q", cfg.ID) }

// LogValue implements [slog.LogValuer].
func (cfg Config) LogValue() slog.Value { return slog.GroupValue(slog.String("peer", cfg.ID)) }

// CheckAPIKey returns an error, without the key, if it cannot be sent as it is. The empty one, which is not sent, can.
func CheckAPIKey(key secret.Secret) error {
	if !headerValue(key.Reveal()) {
		return errors.New("api key holds a character that a header cannot carry: use printable ASCII without blanks at the ends")
	}
	return nil
}

// headerValue reports whether s can be the value of a header as it stands: visible ASCII, inner blanks, UTF-8 beyond ASCII not.
func headerValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return s == strings.TrimSpace(s)
}
