package peer

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Classify and RetryAfterOf give the external tests the pure halves of an answer's judgement.
func Classify(status int, header http.Header, body []byte, expectID string, now time.Time) *Error {
	if expectID == "" {
		return classify(status, header, body, nil, now)
	}
	return classify(status, header, body, []string{expectID}, now)
}

// RetryAfterOf is retryAfter.
func RetryAfterOf(header http.Header, resetAt string, now time.Time) time.Duration {
	return retryAfter(header, resetAt, now)
}

// Unparsed reports whether the lenient reading takes the answer behind e for an acknowledgement.
func Unparsed(e *Error) bool { return e.unparsed }

// ProxyOf returns whether the client's transport has a proxy function.
func ProxyOf(c *Client) bool { return c.transport.Proxy != nil }

// SetDial replaces the dialer, and with it the dial guard. Before the first request only.
func SetDial(c *Client, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	c.transport.DialContext = dial
}

// Members is members with the result as a map.
func Members(text []byte) (map[string]string, bool) {
	fields, ok := members(text)
	found := map[string]string{}
	for _, name := range []string{"ids", "quota_refused", "unsupported_on_postgres", "skipped", "dry_run"} {
		if value := *fields.member([]byte(name)); value != nil {
			found[name] = string(value)
		}
	}
	return found, ok
}
