package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/secret"
	"quorumbox/internal/span"
)

const (
	// PushPath is appended to the base URL of a peer.
	PushPath = "/api/v1/sync/push"
	// MaxBodyBytes is the largest body that peers accept (their answer to more is 413). A longer one is not sent.
	MaxBodyBytes = 2 << 20
	// AttemptLimit bounds an attempt whose context has no deadline: the peer's own limit for a request is 60 s.
	AttemptLimit = 65 * time.Second

	maxAnswerBytes   = 64 << 10
	maxHeaderBytes   = 16 << 10
	maxKeyBytes      = 8 << 10 // of an Idempotency-Key or credential; HTTP servers give up between 8 and 64 KiB of headers
	writeBufferBytes = 8 << 10 // headers and body of a small push leave in one write
)

// errAttemptLimit is the cause of an attempt that ran into [AttemptLimit].
var errAttemptLimit = fmt.Errorf("attempt limit of %s: %w", AttemptLimit, context.DeadlineExceeded)

// Client sends pushes to one peer over connections of its own. It is safe for concurrent use. It prints as its peer's id.
type Client struct {
	id         string
	base       string // without a trailing slash
	endpoint   *url.URL
	host       string
	key        func() ed25519.PrivateKey
	apiKey     func() secret.Secret
	credential func(signer ed25519.PublicKey) (cred, chain string)
	gate       func(scheme, host string) error
	observe    func(Attempt)
	tracer     trace.Tracer // nil: no spans
	lenient    LenientAcks
	headers    http.Header // those that every request has; never changed
	transport  *http.Transport
	buffers    sync.Pool // of *[]byte, for signed bytes and answers
}

// New returns a client of the peer that cfg describes, or an error that lists everything that is wrong with cfg and says what
// to fix. It resolves no name and opens no connection.
//
// The transport takes no proxy from the environment (it would get the dial in place of the guard), asks for no compression,
// speaks TLS 1.3 or nothing, and HTTP/1.1 only: under HTTP/2 all pushes to a peer share a connection, so one lost connection
// would leave all of them in doubt, and its transport has replay rules of its own.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	base, err := ParseURL(cfg.URL)
	if err := errors.Join(err, cfg.check()); err != nil {
		return nil, fmt.Errorf("peer %q: %w", printable(cfg.ID), err)
	}
	endpoint, err := url.Parse(base.String() + PushPath)
	if err != nil {
		return nil, fmt.Errorf("peer %q: url cannot be read: write it as https://host:port", cfg.ID)
	}

	headers := http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {"quorumbox"},
		"X-Peer-Id":    {cfg.SenderID},
	}
	return &Client{
		id:         cfg.ID,
		base:       base.String(),
		endpoint:   endpoint,
		host:       base.Hostname(),
		key:        cfg.GetSigningKey,
		apiKey:     cfg.GetAPIKey,
		credential: cfg.Credential,
		gate:       cfg.Gate,
		observe:    cfg.Observe,
		tracer:     cfg.Tracer,
		lenient:    cfg.LenientAcks,
		headers:    headers,
		transport:  newTransport(cfg),
		buffers:    sync.Pool{New: func() any { return new([]byte) }},
	}, nil
}

func newTransport(cfg Config) *http.Transport {
	dialer := &net.Dialer{
		Timeout:         cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: cfg.KeepAlive},
		Control:         control(cfg.AllowNets, cfg.TCPUserTimeout),
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		DialTLSContext:         dialTLS(dialer, cfg),
		DisableCompression:     true,
		MaxIdleConnsPerHost:    cfg.MaxConns,
		MaxConnsPerHost:        cfg.MaxConns,
		IdleConnTimeout:        cfg.IdleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        writeBufferBytes,
		Protocols:              &protocols,
	}
}

// errHandshakeTimeout is the cause of a TLS handshake that took longer than the connect timeout.
var errHandshakeTimeout = fmt.Errorf("no TLS handshake within the connect timeout: %w", context.DeadlineExceeded)

// dialTLS returns how to connect to a peer behind TLS. The transport's own way would keep the authorities of its first handshake for ever.
func dialTLS(dialer *net.Dialer, cfg Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, cfg.ConnectTimeout, errHandshakeTimeout)
		defer cancel()
		secured := tls.Client(conn, cfg.tlsConfig(host))
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return secured, nil
	}
}

// tlsConfig is that of one handshake.
func (cfg Config) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"http/1.1"},
		ServerName:           host,
		RootCAs:              cfg.GetRootCAs(),
		GetClientCertificate: cfg.ClientCertificate,
	}
}

// control returns the hook that sees each resolved address before the socket connects.
func control(allow []netip.Prefix, userTimeout time.Duration) func(network, address string, conn syscall.RawConn) error {
	return func(_, address string, conn syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: no valid address", ErrBlocked)
		}
		if err := Allowed(addr, allow); err != nil {
			return err
		}
		var optErr error
		if err := conn.Control(func(fd uintptr) { optErr = setUserTimeout(fd, userTimeout) }); err != nil {
			return err
		}
		return optErr
	}
}

// ID returns the peer's id.
func (c *Client) ID() string { return c.id }

// Format implements [fmt.Formatter]: the id alone, for every verb, because the struct holds keys.
func (c *Client) Format(state fmt.State, _ rune) { _, _ = fmt.Fprintf(state, "peer %q", c.id) }

// LogValue implements [slog.LogValuer].
func (c *Client) LogValue() slog.Value { return slog.GroupValue(slog.String("peer", c.id)) }

// CloseIdle closes the connections that no request is using. After the last request it leaves no goroutine behind. The client
// stays usable.
func (c *Client) CloseIdle() { c.transport.CloseIdleConnections() }

// Catchup says whether a push is part of a bulk catch-up.
type Catchup uint8

const (
	// CatchupNone marks an ordinary push.
	CatchupNone Catchup = iota
	// CatchupBulk adds the header "X-Catchup: bulk".
	CatchupBulk
)

// Request is one push.
type Request struct {
	// Body is what [Message.Encode] returned, 1..[MaxBodyBytes] bytes. It must not be changed before the call has returned;
	// afterwards it is the caller's again.
	Body []byte
	// IdempotencyKey names the operation. Empty leaves the header out. Receivers do not act on it.
	IdempotencyKey string
	// ExpectIDs must all be among the ids of the answer, if the answer lists any. Empty checks nothing.
	ExpectIDs []string
	// Catchup marks the push of a bulk catch-up.
	Catchup Catchup
	// Entries is how many entries the push is about, for its span. It is not sent.
	Entries int
}

// Post sends the push once and returns nil if it was truly acknowledged, else an [*Error].
//
// ctx bounds everything, the reading of the answer included; without a deadline [AttemptLimit] does. If ctx ends by a cause that
// wraps context.DeadlineExceeded the class is a timeout, else canceled; the cause is in the error's tree. The body goes out
// exactly as it is, with its length; the request cannot be rewound, so that net/http does not replay it (with its nonce) on a
// kept-alive connection that the peer closed, as it otherwise does for requests with an Idempotency-Key.
func (c *Client) Post(ctx context.Context, req Request) error {
	if e := c.attempt(ctx, req, firstTurn); e != nil {
		return e
	}
	return nil
}

// post makes one request. status is that of the answer, 0 if there was none.
func (c *Client) post(ctx context.Context, req Request) (status int, e *Error) {
	if e := c.admit(req); e != nil {
		return 0, e
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, AttemptLimit, errAttemptLimit)
		defer cancel()
	}

	body := &payload{data: req.Body}
	defer body.detach()
	wire := (&http.Request{
		Method:        http.MethodPost,
		URL:           c.endpoint,
		Host:          c.endpoint.Host,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        c.header(ctx, req),
		Body:          body,
		ContentLength: int64(len(req.Body)),
		GetBody:       nil, // see Post
	}).WithContext(ctx)

	// The transport itself, not an http.Client: nothing follows redirects, keeps cookies or wraps the URL into errors.
	resp, err := c.transport.RoundTrip(wire)
	if err != nil {
		return 0, noAnswer(ctx, err, body.detach() > 0)
	}
	return resp.StatusCode, c.answered(ctx, resp, body, req.ExpectIDs)
}

// admit refuses what cannot or may not be sent, without any use of the network.
func (c *Client) admit(req Request) *Error {
	invalid := func(class Class, detail string) *Error { return &Error{Class: class, Detail: detail, unsent: true} }
	switch {
	case len(req.Body) == 0:
		return invalid(ClassInvalidRequest, "the body is empty")
	case len(req.Body) > MaxBodyBytes:
		return invalid(ClassTooLarge, fmt.Sprintf("the body has %d bytes and peers accept %d: split the push", len(req.Body), MaxBodyBytes))
	case len(req.IdempotencyKey) > maxKeyBytes:
		return invalid(ClassInvalidRequest, fmt.Sprintf("the idempotency key has %d bytes, more than %d", len(req.IdempotencyKey), maxKeyBytes))
	case !headerValue(req.IdempotencyKey):
		return invalid(ClassInvalidRequest, "the idempotency key holds a character that a header cannot carry")
	}
	return c.askGate()
}

// askGate is the refusal of the outbound gate, nil if there is none.
func (c *Client) askGate() *Error {
	if c.gate == nil {
		return nil
	}
	if err := c.gate(c.endpoint.Scheme, c.host); err != nil {
		return &Error{Class: ClassBlocked, Detail: printable(gatePrefix + c.host + ": " + err.Error()), cause: err, unsent: true}
	}
	return nil
}

// gatePrefix begins the reason of a push that the gate refused.
const gatePrefix = "governance refused outbound to "

// header returns the headers of one attempt. Each call makes a new nonce.
func (c *Client) header(ctx context.Context, req Request) http.Header {
	header := make(http.Header, len(c.headers)+7)
	maps.Copy(header, c.headers)
	c.addAPIKey(header)
	if req.IdempotencyKey != "" {
		header["Idempotency-Key"] = []string{req.IdempotencyKey}
	}
	if req.Catchup == CatchupBulk {
		header["X-Catchup"] = []string{"bulk"}
	}
	var signer ed25519.PublicKey
	if key := c.key(); len(key) != 0 {
		signer, _ = key.Public().(ed25519.PublicKey)
		nonce := uuid.NewString()
		buf := c.buffers.Get().(*[]byte)
		var signature string
		signature, *buf = sign(key, req.Body, nonce, *buf)
		c.buffers.Put(buf)
		header["X-Memory-Nonce"] = []string{nonce}
		header["X-Memory-Sig"] = []string{signature}
	}
	if c.credential != nil {
		addCredential(header, signer, c.credential)
	}
	if c.tracer != nil {
		if traceparent := span.Format(ctx); traceparent != "" {
			header["Traceparent"] = []string{traceparent}
		}
	}
	return header
}

// addAPIKey adds the api key of this moment, if there is one.
func (c *Client) addAPIKey(header http.Header) {
	if key := c.apiKey(); !key.IsZero() {
		header["X-Api-Key"] = []string{key.Reveal()}
	}
}

// addCredential adds what credential returns, as far as a header can carry it. There is no chain without its leaf.
func addCredential(header http.Header, signer ed25519.PublicKey, credential func(ed25519.PublicKey) (cred, chain string)) {
	fits := func(value string) bool { return value != "" && len(value) <= maxKeyBytes && headerValue(value) }
	cred, chain := credential(signer)
	if !fits(cred) {
		return
	}
	header["X-Memory-Cred"] = []string{cred}
	if fits(chain) {
		header["X-Memory-Cred-Chain"] = []string{chain}
	}
}
