package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// errTooLong is the end of an answer beyond maxAnswerBytes.
var errTooLong = errors.New("the answer is longer than 64 KiB")

// answered reads the answer to its end, so that the connection can be used again, and judges it.
func (c *Client) answered(ctx context.Context, resp *http.Response, body *payload, expectIDs []string) *Error {
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// The body of 101 is the connection itself; a context does not end reads of it.
		return classify(resp.StatusCode, resp.Header, nil, nil, time.Now())
	}

	buf := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	var err error
	*buf, err = readAnswer(resp.Body, (*buf)[:0])

	accepted := resp.StatusCode >= 200 && resp.StatusCode < 300
	switch {
	case accepted && errors.Is(err, errTooLong):
		return &Error{Class: ClassMalformedAnswer, Status: resp.StatusCode, Detail: err.Error()}
	case accepted && err != nil:
		return noAnswer(ctx, err, true)
	case accepted && !body.whole():
		return &Error{Class: ClassMalformedAnswer, Status: resp.StatusCode, Detail: "answered before the whole push was sent"}
	}
	e := classify(resp.StatusCode, resp.Header, *buf, expectIDs, time.Now())
	if e != nil && e.unparsed && bool(c.lenient) {
		return nil
	}
	return e
}

// readAnswer appends the answer to buf, at most maxAnswerBytes of it.
func readAnswer(body io.Reader, buf []byte) ([]byte, error) {
	for {
		buf = slices.Grow(buf, 512)
		n, err := body.Read(buf[len(buf):min(cap(buf), maxAnswerBytes+1)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > maxAnswerBytes:
			return buf[:maxAnswerBytes], errTooLong
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// classify judges an answer by its status, headers and body: nil for a true acknowledgement. It is pure and total. Nothing of
// the body gets into the error but counts, and tags that this package knows.
func classify(status int, header http.Header, body []byte, expectIDs []string, now time.Time) *Error {
	e := &Error{Status: status}
	switch {
	case status >= 200 && status < 300:
		return accepted(e, header, body, expectIDs, now)
	case status >= 300 && status < 400:
		e.Class = ClassRedirect
	case status == http.StatusBadRequest && speaksTLS(body):
		e.Class, e.Detail = ClassTLS, "the peer speaks TLS and the url says http"
	case status == http.StatusBadRequest:
		e.Class = ClassBadRequest
	case status == http.StatusUnauthorized:
		e.Class, e.Detail = ClassUnauthorized, authTag(body)
		if e.Detail == tagNonceReplay {
			e.Class = ClassNonceReplay
		}
	case status == http.StatusForbidden:
		e.Class, e.Detail = ClassForbidden, authTag(body)
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		e.Class = ClassNotFound
	case status == http.StatusConflict:
		e.Class = ClassConflict
	case status == http.StatusRequestEntityTooLarge:
		e.Class = ClassTooLarge
	case status == http.StatusTooManyRequests:
		e.Class = ClassRateLimited
		quota := readQuota(body)
		if quota.Error == "QUOTA_EXCEEDED" || header.Get("X-Quota-Reset-At") != "" {
			e.Class = ClassQuota
		}
		e.Applied, e.Refused = clampCount(quota.Applied), clampCount(quota.Refused)
		e.RetryAfter = retryAfter(header, quota.ResetAt, now)
	case status >= 500 && status < 600:
		e.Class = serverClass(status)
		e.RetryAfter = retryAfter(header, "", now)
	default:
		e.Class = ClassHTTPOther
	}
	return e
}

func serverClass(status int) Class {
	switch status {
	case http.StatusServiceUnavailable:
		return ClassUnavailable
	case http.StatusGatewayTimeout:
		return ClassServerTimeout
	default:
		return ClassServerError
	}
}

// accepted judges a 2xx answer. What is not understood is no acknowledgement.
func accepted(e *Error, header http.Header, body []byte, expectIDs []string, now time.Time) *Error {
	malformed := func(detail string) *Error {
		e.Class, e.Detail = ClassMalformedAnswer, detail
		return e
	}
	for _, encoding := range header.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return malformed("the answer is compressed, which was not asked for")
		}
	}
	fields, ok := members(body)
	if !ok {
		e.unparsed = !isObject(body)
		return malformed("the answer is no JSON object")
	}
	if fields.ids != nil {
		var ids []string
		if err := json.Unmarshal(fields.ids, &ids); err != nil {
			return malformed("ids is no list of strings")
		}
		if len(ids) > 0 && !containsAll(ids, expectIDs) {
			e.Class, e.Detail = ClassIDDrift, "the ids of the answer do not include all that were sent"
			return e
		}
	}
	for _, counter := range [...]struct {
		name  string
		value []byte
		class Class
	}{
		{"quota_refused", fields.quotaRefused, ClassQuota},
		{"unsupported_on_postgres", fields.unsupported, ClassUnsupported},
		{"skipped", fields.skipped, ClassSkipped},
	} {
		count, ok := countOf(counter.value)
		if !ok {
			return malformed(counter.name + " is no count")
		}
		if count > 0 {
			e.Class, e.Detail = counter.class, counter.name+" "+strconv.FormatUint(count, 10)
			e.Refused = clampCount(counter.value)
			if counter.class == ClassQuota {
				e.RetryAfter = retryAfter(header, "", now)
			}
			return e
		}
	}
	if string(fields.dryRun) == "true" {
		return malformed("the answer is that of a dry run")
	}
	return nil
}

// containsAll reports whether all of want are among ids.
func containsAll(ids, want []string) bool {
	have := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		have[id] = struct{}{}
	}
	return !slices.ContainsFunc(want, func(id string) bool {
		_, ok := have[id]
		return !ok
	})
}

// countOf reads a counter; absent and null count as 0.
func countOf(raw []byte) (uint64, bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, true
	}
	count, err := strconv.ParseUint(string(raw), 10, 64)
	return count, err == nil
}

// tagNonceReplay is what a peer answers to a request that it has seen already.
const tagNonceReplay = "x_memory_nonce_replay"

// authTag returns the first of the reference's refusal tags that a body of 401 or 403 holds, "" if it holds none. The tags are
// constants of ours, so the peer cannot write into our logs by it.
func authTag(body []byte) string {
	for _, tag := range []string{
		tagNonceReplay,
		"x_memory_nonce_missing",
		"x_memory_sig_bad_signature",
		"x_memory_sig_malformed",
		"x_memory_sig_unknown_algorithm",
		"x_memory_sig_no_enrolled_key",
		"x_memory_sig_missing",
		"x_peer_id_not_in_allowlist",
		"peer_not_enrolled",
		"peer_id_header_missing",
		"sender_agent_id_mismatch",
		"missing or invalid API key",
	} {
		if bytes.Contains(body, []byte(tag)) {
			return tag
		}
	}
	return ""
}

// speaksTLS recognises what servers answer to plain HTTP on a TLS port (Go's net/http, nginx). Without it a wrong scheme would
// look like a payload that the peer refuses.
func speaksTLS(body []byte) bool {
	return bytes.Contains(body, []byte("HTTP request to an HTTPS server")) ||
		bytes.Contains(body, []byte("plain HTTP request was sent to HTTPS port"))
}

// quota is what matters of a body of 429. The texts and counts are the peer's.
type quota struct {
	Error   string
	ResetAt string
	Applied json.RawMessage
	Refused json.RawMessage
}

// readQuota reads a body of 429. What cannot be read is left out, field by field.
func readQuota(body []byte) quota {
	var raw struct {
		Error   json.RawMessage `json:"error"`
		ResetAt json.RawMessage `json:"reset_at"`
		Applied json.RawMessage `json:"applied_before_refusal"`
		Refused json.RawMessage `json:"quota_refused"`
	}
	q := quota{}
	if err := json.Unmarshal(body, &raw); err != nil {
		return q
	}
	q.Applied, q.Refused = raw.Applied, raw.Refused
	for _, text := range [...]struct {
		from json.RawMessage
		to   *string
	}{{raw.Error, &q.Error}, {raw.ResetAt, &q.ResetAt}} {
		if len(text.from) > 0 {
			_ = json.Unmarshal(text.from, text.to) // left empty if it is no text
		}
	}
	return q
}

// clampCount reads a counter into 0..[MaxCount]. What is no integer counts as 0.
func clampCount(raw []byte) int {
	count, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range, ParseInt returns the nearest value
		return 0
	}
	return int(min(max(count, 0), MaxCount))
}
