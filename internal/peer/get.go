package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// MaxReadBytes is the longest answer to a read. The longest page that a peer may give, 1000 memories of 128 KiB, is longer: ask
// for fewer then ([ErrLongAnswer]).
const MaxReadBytes = 16 << 20

// ErrLongAnswer is in the tree of the error of a read whose answer is longer than [MaxReadBytes].
var ErrLongAnswer = errors.New("the answer is longer than 16 MiB")

// get asks the peer for path, as agent if that is not empty, and hands the whole answer to read. It goes out over the same connections, under the
// same guard and with the same identity and api key as a push, and is not signed: peers check signatures of pushes only. It is not observed.
func (c *Client) get(ctx context.Context, path string, query url.Values, agent string, read func(body []byte) error) *Error {
	if e := c.askGate(); e != nil {
		return e
	}
	if !headerValue(agent) || len(agent) > maxIDBytes {
		return &Error{Class: ClassInvalidRequest, Detail: "the agent id holds a character that a header cannot carry, or is too long", unsent: true}
	}
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	target, err := url.Parse(address)
	if err != nil {
		return &Error{Class: ClassInvalidRequest, Detail: "the path cannot be part of a url", unsent: true}
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, AttemptLimit, errAttemptLimit)
		defer cancel()
	}
	var connected atomic.Bool // net/http does not promise in which goroutine it calls
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	resp, err := c.transport.RoundTrip((&http.Request{
		Method:     http.MethodGet,
		URL:        target,
		Host:       target.Host,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     c.readHeader(agent),
	}).WithContext(traced))
	if err != nil {
		return noAnswer(ctx, err, connected.Load())
	}
	defer resp.Body.Close()
	return readAnswered(ctx, resp, read)
}

// readHeader is what a read carries.
func (c *Client) readHeader(agent string) http.Header {
	header := make(http.Header, 4)
	for _, name := range []string{"User-Agent", "X-Peer-Id"} {
		header[name] = c.headers[name]
	}
	c.addAPIKey(header)
	if agent != "" {
		header["X-Agent-Id"] = []string{agent}
	}
	return header
}

// readAnswered reads the answer to a read to its end and judges it.
func readAnswered(ctx context.Context, resp *http.Response, read func(body []byte) error) *Error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		var text []byte
		if resp.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection itself
			text, _ = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes)) // a tag, if it can be read
		}
		return classify(resp.StatusCode, resp.Header, text, nil, time.Now())
	}
	malformed := func(detail string, cause error) *Error {
		return &Error{Class: ClassMalformedAnswer, Status: resp.StatusCode, Detail: detail, cause: cause}
	}
	for _, encoding := range resp.Header.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return malformed("the answer is compressed, which was not asked for", nil)
		}
	}
	if resp.ContentLength > MaxReadBytes {
		return malformed(ErrLongAnswer.Error(), ErrLongAnswer)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxReadBytes+1))
	switch {
	case err != nil:
		return noAnswer(ctx, err, true)
	case len(body) > MaxReadBytes:
		return malformed(ErrLongAnswer.Error(), ErrLongAnswer)
	}
	if err := read(body); err != nil {
		return malformed(printable(err.Error()), nil)
	}
	return nil
}

// errNotUnderstood is an answer that is not what was asked for. Its text is ours alone; what json says quotes the peer.
var errNotUnderstood = errors.New("the answer is not what a peer answers to a read")

// readMembers walks the members of a JSON object and lets take read the values of those it knows. Nothing is decoded that nobody takes.
func readMembers(body []byte, take map[string]func(*json.Decoder) error) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return errNotUnderstood
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errNotUnderstood
		}
		read := take[name]
		switch {
		case read == nil:
			var skipped json.RawMessage
			if dec.Decode(&skipped) != nil {
				return errNotUnderstood
			}
			continue
		case seen[name]:
			return fmt.Errorf("%w: %s twice", errNotUnderstood, name)
		}
		seen[name] = true
		if err := read(dec); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return errNotUnderstood
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errNotUnderstood
	}
	for name := range take {
		if !seen[name] {
			return fmt.Errorf("%w: no %s", errNotUnderstood, name)
		}
	}
	return nil
}

// readList returns what reads a list of at most limit elements into list: more than were asked for would be a way to fill this process's memory.
func readList[T any](list *[]T, limit int) func(*json.Decoder) error {
	return func(dec *json.Decoder) error {
		*list = nil
		if token, err := dec.Token(); err != nil || token != json.Delim('[') {
			return fmt.Errorf("%w: no list", errNotUnderstood)
		}
		for dec.More() {
			if len(*list) == limit {
				return fmt.Errorf("%w: more elements than asked for", errNotUnderstood)
			}
			var element T
			if dec.Decode(&element) != nil {
				return fmt.Errorf("%w: an element of a list", errNotUnderstood)
			}
			*list = append(*list, element)
		}
		if _, err := dec.Token(); err != nil {
			return errNotUnderstood
		}
		return nil
	}
}

// readOne returns what reads one value.
func readOne[T any](value *T) func(*json.Decoder) error {
	return func(dec *json.Decoder) error {
		if dec.Decode(value) != nil {
			return errNotUnderstood
		}
		return nil
	}
}
