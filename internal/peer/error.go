package peer

import (
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxCount is the largest value of [Error.Refused] and [Error.Applied]. Larger counts of a peer are cut to it.
const MaxCount = math.MaxInt32

// maxDetailBytes bounds [Error.Detail], because errors end in rows and pages.
const maxDetailBytes = 200

// Error is a push that was not acknowledged. Its texts are made here and hold nothing that the peer sent, no payload, no
// secret and no part of the URL; so it is safe in logs, job rows and pages.
//
// It is returned as a pointer; use errors.AsType[*Error], [ClassOf] or [OutcomeOf]. Its fields are not to be changed.
type Error struct {
	// Class says what happened. It is never [ClassOK].
	Class Class
	// Status is the HTTP status of the answer, 0 if there was none or it was cut.
	Status int
	// RetryAfter is how long the peer asks to be left alone, within [MinRetryAfter, MaxRetryAfter]; 0 if it does not say.
	RetryAfter time.Duration
	// Refused is how many items the peer says that it did not take: the counter behind the class, which is skipped,
	// unsupported_on_postgres or quota_refused. 0 if the answer does not say. It is the peer's word, within 0..[MaxCount].
	Refused int
	// Applied is how many items the peer says that it took before it answered 429 (applied_before_refusal): the first ones,
	// in the order of the message. 0 if the answer does not say. It is the peer's word, within 0..[MaxCount], and may be
	// more than was sent.
	Applied int
	// Detail adds a fact to the class, in at most 200 printable ASCII bytes. It may be empty.
	Detail string

	first    *Error // the attempt before this one, if this one was the retry
	cause    error
	unsent   bool // nothing of the body left this process
	unparsed bool // the answer was 2xx and no JSON object; see LenientAcks
}

// Error returns the reason in the forms of the reference sender: "http 503 Service Unavailable", "network: ..." for a push
// without an answer, "governance refused outbound to ..." for the gate, and "first: ...; retry: ..." for two attempts.
func (e *Error) Error() string {
	if e.first == nil {
		return e.reason()
	}
	return "first: " + e.first.reason() + "; retry: " + e.reason()
}

func (e *Error) reason() string {
	switch {
	case e.Status == 0 && e.Class == ClassInvalidRequest, e.Status == 0 && e.Class == ClassTooLarge:
		return "request not sent: " + e.Detail
	case e.Status == 0 && strings.HasPrefix(e.Detail, gatePrefix):
		return e.Detail
	case e.Status == 0:
		return "network: " + e.detailOrClass()
	}
	text := http.StatusText(e.Status)
	if text == "" {
		text = "<unknown status code>"
	}
	reason := "http " + strconv.Itoa(e.Status) + " " + text
	if e.Detail != "" {
		reason += ": " + e.Detail
	}
	return reason
}

func (e *Error) detailOrClass() string {
	if e.Detail == "" {
		return string(e.Class)
	}
	return e.Detail
}

// Unwrap returns the cause, such as the cause of the context or a system error, or nil. The text of the cause may hold what the
// peer sent; test it with errors.Is and do not print it.
func (e *Error) Unwrap() error { return e.cause }

// Outcome returns what the push can have done at the peer. It is the outcome of the class, except that a push of which nothing
// was sent is [Fail] however it ended, and that a retry does not undo the doubt about the first attempt: if that was
// [Unknown], a retry that failed leaves it so.
func (e *Error) Outcome() Outcome {
	outcome := e.Class.Outcome()
	if e.unsent && outcome == Unknown {
		outcome = Fail
	}
	if outcome == Fail && e.first != nil && e.first.Outcome() == Unknown {
		outcome = Unknown
	}
	return outcome
}

// Hint returns one sentence for the operator on what to look at: [Class.Hint].
func (e *Error) Hint() string { return e.Class.Hint() }

// Attempts returns how many requests were made before the push was given up: 1 or 2.
func (e *Error) Attempts() int {
	if e.first == nil {
		return 1
	}
	return 2
}

// LogValue implements [slog.LogValuer].
func (e *Error) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("class", string(e.Class)),
		slog.String("outcome", e.Outcome().String()),
		slog.String("reason", e.Error()),
	}
	if e.Status != 0 {
		attrs = append(attrs, slog.Int("status", e.Status))
	}
	if e.RetryAfter != 0 {
		attrs = append(attrs, slog.Duration("retry_after", e.RetryAfter))
	}
	if e.Refused != 0 {
		attrs = append(attrs, slog.Int("refused", e.Refused))
	}
	if e.Applied != 0 {
		attrs = append(attrs, slog.Int("applied", e.Applied))
	}
	return slog.GroupValue(attrs...)
}

// printable returns at most 200 bytes of s with everything but printable ASCII replaced by "?".
func printable(s string) string {
	if len(s) > maxDetailBytes {
		s = s[:maxDetailBytes]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
