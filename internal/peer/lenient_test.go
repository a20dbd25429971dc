package peer_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

func lenient(cfg *peer.Config) { cfg.LenientAcks = true }

// What the lenient reading takes for an acknowledgement, and what it does not: checklist row 16.
func TestLenientAcks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		status int
		body   string
		strict peer.Class
		class  peer.Class // with LenientAcks
	}{
		{"no JSON", 200, "not json", peer.ClassMalformedAnswer, peer.ClassOK},
		{"HTML", 200, "<html></html>", peer.ClassMalformedAnswer, peer.ClassOK},
		{"empty", 200, "", peer.ClassMalformedAnswer, peer.ClassOK},
		{"no content", 204, "", peer.ClassMalformedAnswer, peer.ClassOK},
		{"cut JSON", 200, `{"applied":1`, peer.ClassMalformedAnswer, peer.ClassOK},
		{"a list", 200, `[]`, peer.ClassMalformedAnswer, peer.ClassOK},
		{"an acknowledgement", 200, okAnswer, peer.ClassOK, peer.ClassOK},

		{"skipped", 200, `{"skipped":1}`, peer.ClassSkipped, peer.ClassSkipped},
		{"quota", 200, `{"quota_refused":1}`, peer.ClassQuota, peer.ClassQuota},
		{"unsupported", 200, `{"unsupported_on_postgres":1}`, peer.ClassUnsupported, peer.ClassUnsupported},
		{"drift", 200, `{"ids":["m-2"]}`, peer.ClassIDDrift, peer.ClassIDDrift},
		{"a member twice", 200, `{"skipped":1,"skipped":0}`, peer.ClassMalformedAnswer, peer.ClassMalformedAnswer},
		{"a count that is none", 200, `{"skipped":"1"}`, peer.ClassMalformedAnswer, peer.ClassMalformedAnswer},
		{"ids that are none", 200, `{"ids":1}`, peer.ClassMalformedAnswer, peer.ClassMalformedAnswer},
		{"dry run", 200, `{"dry_run":true}`, peer.ClassMalformedAnswer, peer.ClassMalformedAnswer},
		{"too long", 200, strings.Repeat("x", 64<<10+1), peer.ClassMalformedAnswer, peer.ClassMalformedAnswer},
		{"not 2xx", 400, "not json", peer.ClassBadRequest, peer.ClassBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				if test.body != "" {
					_, _ = io.WriteString(w, test.body)
				}
			})
			request := peer.Request{Body: body(), ExpectIDs: []string{"m-1"}}
			if got := peer.ClassOf(newClient(t, rec.URL).Post(testContext(t), request)); got != test.strict {
				t.Errorf("strict: got %s, want %s", got, test.strict)
			}
			if got := peer.ClassOf(newClient(t, rec.URL, lenient).Post(testContext(t), request)); got != test.class {
				t.Errorf("lenient: got %s, want %s", got, test.class)
			}
		})
	}
}

// An answer that breaks off has not been read, so nobody knows what it says.
func TestLenientAcksWantTheWholeAnswer(t *testing.T) {
	t.Parallel()
	raw := newRawPeer(t, func(_ int, conn net.Conn, in *bufio.Reader) {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"skipped\":")
	})
	err := newClient(t, "http://"+raw.Addr().String(), lenient).Post(testContext(t), peer.Request{Body: body()})
	checkClass(t, err, peer.ClassConnectionLost, peer.Unknown)

	compressed := peer.Classify(200, http.Header{"Content-Encoding": {"gzip"}}, []byte("\x1f\x8b"), "", time.Now())
	if compressed == nil || peer.Unparsed(compressed) {
		t.Errorf("compressed: got %v, want an error in both readings", compressed)
	}
}

// How many items an answer says to be refused and applied.
func TestCountsOfAnAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name             string
		status           int
		body             string
		refused, applied int
	}{
		{"skipped", 200, `{"applied":3,"skipped":2}`, 2, 0},
		{"quota comes first", 200, `{"skipped":2,"quota_refused":1}`, 1, 0},
		{"unsupported", 200, `{"unsupported_on_postgres":7}`, 7, 0},
		{"huge", 200, `{"skipped":18446744073709551615}`, peer.MaxCount, 0},
		{"drift says nothing", 200, `{"ids":["m-2"],"skipped":2}`, 0, 0},
		{"429", 429, `{"error":"QUOTA_EXCEEDED","applied_before_refusal":4,"quota_refused":1}`, 1, 4},
		{"429 of another kind", 429, `{"error":"TOO_FAST","applied_before_refusal":4}`, 0, 4},
		{"429 with text", 429, `slow down`, 0, 0},
		{"429 with odd fields", 429, `{"error":5,"reset_at":[],"applied_before_refusal":4,"quota_refused":"1"}`, 0, 4},
		{"429 negative", 429, `{"applied_before_refusal":-4,"quota_refused":-9223372036854775809}`, 0, 0},
		{"429 huge", 429, `{"applied_before_refusal":9223372036854775808}`, 0, peer.MaxCount},
		{"429 with a fraction", 429, `{"applied_before_refusal":1.5}`, 0, 0},
		{"429 null", 429, `{"applied_before_refusal":null}`, 0, 0},
		{"503", 503, `{"applied_before_refusal":4,"skipped":1}`, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := peer.Classify(test.status, nil, []byte(test.body), "m-1", time.Now())
			if e == nil {
				t.Fatal("got an ack, want an error")
			}
			if e.Refused != test.refused || e.Applied != test.applied {
				t.Errorf("got refused %d, applied %d, want %d, %d", e.Refused, e.Applied, test.refused, test.applied)
			}
		})
	}
	// A field that cannot be read does not hide the others.
	e := peer.Classify(429, nil, []byte(`{"error":"QUOTA_EXCEEDED","reset_at":5,"applied_before_refusal":"x"}`), "", time.Now())
	checkClass(t, e, peer.ClassQuota, peer.Fail)
}
