package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/textproto"
	"strings"
	"syscall"
)

// noAnswer judges an attempt that ended without a complete answer. sent says that the transport had begun to take the body.
func noAnswer(ctx context.Context, err error, sent bool) *Error {
	e := &Error{cause: err, unsent: !sent}
	switch {
	case errors.Is(err, ErrBlocked):
		e.Class, e.Detail = ClassBlocked, blockedText(err)
	case ctx.Err() != nil:
		ended(ctx, e)
	case certificateRefused(err):
		e.Class, e.Detail = ClassTLS, "the peer refuses the client certificate"
	case !sent:
		notConnected(err, e)
	case answeredTLS(err):
		e.Class, e.Detail, e.cause = ClassTLS, "the peer speaks TLS and the url says http", nil
	case notHTTP(err):
		// The text of such an error quotes the peer; it is dropped, also as the cause.
		e.Class, e.Detail, e.cause = ClassMalformedAnswer, "the answer is no HTTP or its headers are too long", nil
	default:
		e.Class, e.Detail = ClassConnectionLost, errnoText(err, "the connection broke before the answer was complete")
	}
	e.Detail = printable(e.Detail)
	return e
}

// ended judges an attempt whose context has ended. A deadline is recognised by the context or by its cause, because a deadline
// may also be kept by canceling with a cause that wraps it.
func ended(ctx context.Context, e *Error) {
	cause := context.Cause(ctx)
	deadline := errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(cause, context.DeadlineExceeded)
	switch {
	case deadline && e.unsent:
		e.Class, e.Detail = ClassConnectTimeout, "no connection before the deadline"
	case deadline:
		e.Class, e.Detail = ClassTimeout, "no complete answer before the deadline"
	default:
		e.Class, e.Detail = ClassCanceled, "the push was canceled"
	}
	// Whoever tests the error with errors.Is finds what the class says, also if the cause is a bare error.
	is := context.Canceled
	if deadline {
		is = context.DeadlineExceeded
	}
	e.cause = cause
	if !errors.Is(cause, is) {
		e.cause = errors.Join(cause, is)
	}
}

// notConnected judges an attempt that found no connection to send its body on.
func notConnected(err error, e *Error) {
	op, isOp := errors.AsType[*net.OpError](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	timeout, isTimeout := errors.AsType[net.Error](err)
	switch {
	case isDNS && dns.IsNotFound:
		e.Class, e.Detail = ClassUnreachable, "the host name does not resolve"
	case isDNS:
		e.Class, e.Detail = ClassUnreachable, "the host name cannot be resolved now"
	case isTimeout && timeout.Timeout():
		e.Class, e.Detail = ClassConnectTimeout, "no connection in time"
	case handshakeFailed(err):
		e.Class, e.Detail = ClassTLS, handshakeText(err)
	case isOp && op.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED):
		e.Class, e.Detail = ClassRefusedConnection, dialText(op, "connection refused")
	case isOp && op.Op == "dial":
		e.Class, e.Detail = ClassUnreachable, dialText(op, errnoText(err, "cannot connect"))
	default:
		e.Class, e.Detail = ClassUnreachable, errnoText(err, "the connection was closed before the push was sent")
	}
}

// dialText names the resolved address, which is ours to print; the URL is not repeated.
func dialText(op *net.OpError, text string) string {
	if op.Addr == nil {
		return text
	}
	return "dial " + op.Addr.String() + ": " + text
}

// errnoText returns the system's text of the error at the bottom of err, or otherwise text. Other texts may quote the peer.
func errnoText(err error, otherwise string) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return otherwise
}

// blockedText returns the text of the guard itself, without what net wrapped around it.
func blockedText(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if strings.HasPrefix(inner.Error(), ErrBlocked.Error()) {
			return inner.Error()
		}
	}
	return ErrBlocked.Error()
}

func handshakeFailed(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error") || strings.HasPrefix(err.Error(), "tls: ")
}

func handshakeText(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the peer's certificate is not valid for it"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the peer does not speak TLS"
	}
	return "the TLS handshake failed"
}

// certificateRefused recognises the alerts by which a peer refuses a client certificate (RFC 8446 section 6.2). In TLS 1.3 they
// arrive after the client has finished its handshake and begun to send; the peer has read none of it. crypto/tls exports no type
// for a received alert, but its texts are its own.
func certificateRefused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return false
	}
	switch op.Err.Error() {
	case "tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate", "tls: expired certificate",
		"tls: unknown certificate", "tls: unknown certificate authority", "tls: access denied", "tls: certificate required":
		return true
	default:
		return false
	}
}

// notHTTP recognises answers that net/http cannot read. It has no types for all of them.
func notHTTP(err error) bool {
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return true
	}
	text := err.Error()
	for _, part := range []string{"malformed", "headers exceeded", "too many 1xx", "Content-Length", "transfer encoding", "chunk", "trailer"} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// answeredTLS recognises a TLS alert in answer to a plain request, by the beginning that net/http quotes: an alert record of any
// TLS version.
func answeredTLS(err error) bool {
	return strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}
