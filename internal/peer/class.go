package peer

import (
	"context"
	"errors"
	"fmt"
)

// Class says what happened to a push. The list is closed ([Classes]), so a class is safe as a metric label, a database
// value and a key of an operator's page; its text never changes once released.
type Class string

// The classes of a push that the peer answered with 2xx.
const (
	// ClassOK is a true acknowledgement.
	ClassOK Class = "ok"
	// ClassIDDrift is an acknowledgement that names other ids than the one that was sent.
	ClassIDDrift Class = "id_drift"
	// ClassSkipped means that the peer validated and skipped at least one item.
	ClassSkipped Class = "skipped"
	// ClassUnsupported means that the peer's storage backend ignores at least one item.
	ClassUnsupported Class = "unsupported"
	// ClassQuota means that the author's quota at the peer is used up (2xx with quota_refused, or 429 with a quota body).
	ClassQuota Class = "quota"
	// ClassMalformedAnswer is an answer that is no acknowledgement because it cannot be trusted: no JSON object, too long,
	// compressed, given before the whole push was sent, or no HTTP at all.
	ClassMalformedAnswer Class = "malformed_answer"
)

// The classes of a push that the peer, or something in front of it, refused with a status.
const (
	// ClassBadRequest is 400.
	ClassBadRequest Class = "bad_request"
	// ClassUnauthorized is 401, other than a repeated nonce.
	ClassUnauthorized Class = "unauthorized"
	// ClassNonceReplay is 401 with the tag x_memory_nonce_replay: the peer has seen this very request already.
	ClassNonceReplay Class = "nonce_replay"
	// ClassForbidden is 403.
	ClassForbidden Class = "forbidden"
	// ClassNotFound is 404 or 405: the URL is not that of a federation peer.
	ClassNotFound Class = "not_found"
	// ClassConflict is 409.
	ClassConflict Class = "conflict"
	// ClassTooLarge is 413, or a body above [MaxBodyBytes], which is not sent at all.
	ClassTooLarge Class = "too_large"
	// ClassRateLimited is 429 without a quota body.
	ClassRateLimited Class = "rate_limited"
	// ClassUnavailable is 503.
	ClassUnavailable Class = "unavailable"
	// ClassServerTimeout is 504.
	ClassServerTimeout Class = "server_timeout"
	// ClassServerError is any other 5xx.
	ClassServerError Class = "server_error"
	// ClassRedirect is 3xx. Redirects are never followed.
	ClassRedirect Class = "redirect"
	// ClassHTTPOther is any other status.
	ClassHTTPOther Class = "http_other"
)

// The classes of a push without an answer.
const (
	// ClassRefusedConnection means that nothing listens at the peer's address.
	ClassRefusedConnection Class = "refused_connection"
	// ClassUnreachable means that no connection could be made for another reason, such as routing or name resolution.
	ClassUnreachable Class = "unreachable"
	// ClassConnectTimeout means that there was no usable connection in time. Nothing of the body was sent.
	ClassConnectTimeout Class = "connect_timeout"
	// ClassTLS means that the TLS handshake failed, or that the peer speaks TLS and the URL says http.
	ClassTLS Class = "tls"
	// ClassBlocked means that the dial guard or the outbound gate refused the address or host.
	ClassBlocked Class = "blocked"
	// ClassTimeout means that the deadline passed after the body began to be sent.
	ClassTimeout Class = "timeout"
	// ClassConnectionLost means that the connection broke after the body began to be sent.
	ClassConnectionLost Class = "connection_lost"
	// ClassCanceled means that the caller's context was canceled.
	ClassCanceled Class = "canceled"
	// ClassInvalidRequest means that the request cannot be put on the wire: an empty body, or a key that is no header value.
	ClassInvalidRequest Class = "invalid_request"
)

// Classes returns every class, in a fixed order. The caller owns the slice.
func Classes() []Class {
	return []Class{
		ClassOK, ClassIDDrift, ClassSkipped, ClassUnsupported, ClassQuota, ClassMalformedAnswer,
		ClassBadRequest, ClassUnauthorized, ClassNonceReplay, ClassForbidden, ClassNotFound, ClassConflict, ClassTooLarge,
		ClassRateLimited, ClassUnavailable, ClassServerTimeout, ClassServerError, ClassRedirect, ClassHTTPOther,
		ClassRefusedConnection, ClassUnreachable, ClassConnectTimeout, ClassTLS, ClassBlocked,
		ClassTimeout, ClassConnectionLost, ClassCanceled, ClassInvalidRequest,
	}
}

// Outcome says what a push can have done at the peer. The zero value is no outcome.
type Outcome uint8

const (
	// Ack is a true acknowledgement.
	Ack Outcome = iota + 1
	// IDDrift is a 2xx answer whose ids disagree. It is neither an acknowledgement nor worth a retry at once.
	IDDrift
	// Fail means that the peer is done with the request and has not applied it (or, when its answer is skipped, quota or
	// unsupported, not all of it), and will not apply it later.
	Fail
	// Unknown means that the request may have been applied, or may still be: whoever sends something that conflicts with it
	// afterwards has to allow for that.
	Unknown
)

// String returns the outcome in the words of logs and pages: ack, id_drift, fail, unknown.
func (o Outcome) String() string {
	switch o {
	case Ack:
		return "ack"
	case IDDrift:
		return "id_drift"
	case Fail:
		return "fail"
	case Unknown:
		return "unknown"
	default:
		return fmt.Sprintf("outcome(%d)", uint8(o))
	}
}

// Outcome returns what a push of this class can have done at the peer. A class outside of the closed list is [Unknown].
// [Error.Outcome] knows more about a particular push and is to be preferred where there is one.
//
// Where a choice had to be made: 503 is Fail, because it says that the request was not handled (RFC 9110 15.6.4); any other
// 5xx is Unknown, because a handler that fails half-way, or a gateway that lost its upstream (502, 504), may have applied the
// push or let it run on. A repeated nonce is Unknown, because the request that used the nonce first was this one. A 2xx that is
// no acknowledgement but cannot be trusted is Unknown.
func (c Class) Outcome() Outcome {
	switch c {
	case ClassOK:
		return Ack
	case ClassIDDrift:
		return IDDrift
	case ClassSkipped, ClassUnsupported, ClassQuota,
		ClassBadRequest, ClassUnauthorized, ClassForbidden, ClassNotFound, ClassConflict, ClassTooLarge,
		ClassRateLimited, ClassUnavailable, ClassRedirect, ClassHTTPOther,
		ClassRefusedConnection, ClassUnreachable, ClassConnectTimeout, ClassTLS, ClassBlocked, ClassInvalidRequest:
		return Fail
	case ClassMalformedAnswer, ClassNonceReplay, ClassServerTimeout, ClassServerError,
		ClassTimeout, ClassConnectionLost, ClassCanceled:
		return Unknown
	default:
		return Unknown
	}
}

// Refusal reports whether the answer is permanent for this payload: the same bytes will get it again, so the entry behind it
// has to be isolated (by splitting a push of several) and shown to an operator. Quota is no refusal but a wait.
func (c Class) Refusal() bool {
	switch c {
	case ClassSkipped, ClassUnsupported, ClassBadRequest, ClassTooLarge, ClassInvalidRequest:
		return true
	default:
		return false
	}
}

// Configuration reports whether somebody has to change something, here or at the peer, before any push to it can succeed.
// [Class.Hint] says what.
func (c Class) Configuration() bool {
	switch c {
	case ClassUnauthorized, ClassForbidden, ClassNotFound, ClassConflict, ClassRedirect, ClassTLS, ClassBlocked:
		return true
	default:
		return false
	}
}

// Hint returns one sentence for the operator on what to look at, or "" for [ClassOK] and unknown classes.
func (c Class) Hint() string {
	switch c {
	case ClassIDDrift:
		return "the peer acknowledged other ids: compare the memory with GET /api/v1/memories/{id} at the peer"
	case ClassSkipped:
		return "the peer skipped the entry: look for a renamed memory, a missing link end or an invalid field"
	case ClassUnsupported:
		return "the peer's storage backend does not support this kind of entry: upgrade the peer or use its SQLite backend"
	case ClassQuota:
		return "the author's quota at the peer is used up: wait for its reset or raise the quota at the peer"
	case ClassMalformedAnswer:
		return "the answer is not that of a federation peer: check that the URL leads to the peer and not to a proxy page"
	case ClassBadRequest:
		return "the peer cannot read the push: look for an invalid field in the entry and compare the protocol versions"
	case ClassUnauthorized:
		return "the peer refuses the credentials: check api_key_file, and that the peer has enrolled the sender's public key"
	case ClassNonceReplay:
		return "the peer has seen the request already: nothing to do, it is sent again with a new nonce"
	case ClassForbidden:
		return "the peer refuses the sender id: allow it in the peer's attestation settings or correct sender_id"
	case ClassNotFound:
		return "there is no federation endpoint at the URL: correct the peer's url"
	case ClassConflict:
		return "the peer says that the sender's policy is out of date: refresh it at the peer"
	case ClassTooLarge:
		return "the push is above the size limit of the peer: raise the limit of the peer or of the proxy in front of it"
	case ClassRateLimited, ClassUnavailable:
		return "the peer asks to wait: nothing to do unless it lasts"
	case ClassServerTimeout, ClassServerError:
		return "the peer fails inside: look at its log"
	case ClassRedirect:
		return "the URL redirects and redirects are never followed: set the peer's url to the final address"
	case ClassHTTPOther:
		return "the peer answered with a status that a federation peer does not use: check what the URL leads to"
	case ClassRefusedConnection:
		return "nothing listens at the peer's address: start the peer or correct its url"
	case ClassUnreachable, ClassConnectTimeout:
		return "the peer cannot be reached: check its name, the network and its firewall"
	case ClassTLS:
		return "the TLS handshake fails: check the scheme of the url, the certificate's name, dates and CA, and that TLS 1.3 is on"
	case ClassBlocked:
		return "the address is not allowed: add its network to the peer's allow list if it is meant"
	case ClassTimeout:
		return "the peer does not answer in time: look at its load, or raise quorum.ack_timeout for a far peer"
	case ClassConnectionLost:
		return "the connection broke while the peer worked: look at its log and at the network"
	case ClassCanceled:
		return "the push was given up by the sender: it is sent again"
	case ClassInvalidRequest:
		return "the entry cannot be put into a request: look at its id and namespace"
	case ClassOK:
		return ""
	default:
		return ""
	}
}

// ClassOf returns the class of a result of [Client.Post] or [Client.Push]: [ClassOK] for nil, and for errors of other origin
// [ClassTimeout] or [ClassCanceled] if they wrap a context's end, else [ClassConnectionLost], the cautious guess.
func ClassOf(err error) Class {
	if err == nil {
		return ClassOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return ClassTimeout
	case errors.Is(err, context.Canceled):
		return ClassCanceled
	default:
		return ClassConnectionLost
	}
}

// OutcomeOf returns the outcome of a result of [Client.Post] or [Client.Push]: [Ack] for nil, [Error.Outcome] for an *Error
// anywhere in err's tree, else that of [ClassOf].
func OutcomeOf(err error) Outcome {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Outcome()
	}
	return ClassOf(err).Outcome()
}
