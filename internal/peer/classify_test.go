package peer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		status  int
		header  http.Header
		body    string
		expect  string
		class   peer.Class
		outcome peer.Outcome
		text    string
	}{
		{name: "ack", status: 200, body: okAnswer, class: peer.ClassOK, outcome: peer.Ack},
		{name: "ack 201", status: 201, body: okAnswer, class: peer.ClassOK, outcome: peer.Ack},
		{name: "empty object", status: 200, body: `{}`, class: peer.ClassOK, outcome: peer.Ack},
		{name: "unknown fields", status: 200, body: ` {"x":[1,{"skipped":5}],"receiver_clock":{"entries":{}}} ` + "\n", class: peer.ClassOK, outcome: peer.Ack},
		{name: "counters null", status: 200, body: `{"skipped":null,"ids":null}`, expect: "m-1", class: peer.ClassOK, outcome: peer.Ack},
		{name: "identity", status: 200, header: http.Header{"Content-Encoding": {"Identity"}}, body: okAnswer, class: peer.ClassOK, outcome: peer.Ack},
		{name: "ids empty", status: 200, body: `{"ids":[]}`, expect: "m-1", class: peer.ClassOK, outcome: peer.Ack},
		{name: "ids match", status: 200, body: `{"ids":["m-0","m-1"]}`, expect: "m-1", class: peer.ClassOK, outcome: peer.Ack},
		{name: "ids not asked for", status: 200, body: `{"ids":["m-0"]}`, class: peer.ClassOK, outcome: peer.Ack},
		{name: "ids drift", status: 200, body: `{"ids":["m-2"]}`, expect: "m-1", class: peer.ClassIDDrift, outcome: peer.IDDrift, text: "http 200 OK: the ids"},
		{name: "ids of another case", status: 200, body: `{"ids":["M-1"]}`, expect: "m-1", class: peer.ClassIDDrift, outcome: peer.IDDrift},
		{name: "ids no list", status: 200, body: `{"ids":"m-1"}`, expect: "m-1", class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "ids of numbers", status: 200, body: `{"ids":[1]}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},

		{name: "skipped", status: 200, body: `{"skipped":2}`, class: peer.ClassSkipped, outcome: peer.Fail, text: "http 200 OK: skipped 2"},
		{name: "quota refused", status: 200, body: `{"quota_refused":1,"skipped":1}`, class: peer.ClassQuota, outcome: peer.Fail},
		{name: "unsupported", status: 200, body: `{"unsupported_on_postgres":1,"skipped":1}`, class: peer.ClassUnsupported, outcome: peer.Fail},
		{name: "skipped with a fraction", status: 200, body: `{"skipped":0.5}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "skipped as text", status: 200, body: `{"skipped":"1"}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "skipped negative", status: 200, body: `{"skipped":-1}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "a repeated key does not hide a skip", status: 200, body: `{"skipped":1,"skipped":0}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "dry run", status: 200, body: `{"dry_run":true}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},

		{name: "empty 200", status: 200, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "204", status: 204, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "HTML", status: 200, body: "<html>" + canary, class: peer.ClassMalformedAnswer, outcome: peer.Unknown, text: "http 200 OK: the answer is no JSON object"},
		{name: "array", status: 200, body: `[]`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "null", status: 200, body: `null`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "cut", status: 200, body: `{"applied":1`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "trailing", status: 200, body: `{}{}`, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "gzip", status: 200, header: http.Header{"Content-Encoding": {"gzip"}}, body: okAnswer, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},
		{name: "second encoding", status: 200, header: http.Header{"Content-Encoding": {"identity", "br"}}, body: okAnswer, class: peer.ClassMalformedAnswer, outcome: peer.Unknown},

		{name: "400", status: 400, body: canary, class: peer.ClassBadRequest, outcome: peer.Fail, text: "http 400 Bad Request"},
		{name: "400 of a TLS port (Go)", status: 400, body: "Client sent an HTTP request to an HTTPS server.\n", class: peer.ClassTLS, outcome: peer.Fail},
		{name: "400 of a TLS port (nginx)", status: 400, body: "<center>The plain HTTP request was sent to HTTPS port</center>", class: peer.ClassTLS, outcome: peer.Fail},
		{name: "401", status: 401, body: canary, class: peer.ClassUnauthorized, outcome: peer.Fail, text: "http 401 Unauthorized"},
		{name: "401 api key", status: 401, body: `{"error":"missing or invalid API key"}`, class: peer.ClassUnauthorized, outcome: peer.Fail, text: "http 401 Unauthorized: missing or invalid API key"},
		{name: "401 not enrolled", status: 401, body: `{"error":"x_memory_sig_no_enrolled_key"}`, class: peer.ClassUnauthorized, outcome: peer.Fail, text: "http 401 Unauthorized: x_memory_sig_no_enrolled_key"},
		{name: "401 nonce replay", status: 401, body: `{"error":"x_memory_nonce_replay"}`, class: peer.ClassNonceReplay, outcome: peer.Unknown, text: "http 401 Unauthorized: x_memory_nonce_replay"},
		{name: "403", status: 403, body: `{"error":"peer_id_header_missing"}`, class: peer.ClassForbidden, outcome: peer.Fail, text: "http 403 Forbidden: peer_id_header_missing"},
		{name: "404", status: 404, class: peer.ClassNotFound, outcome: peer.Fail, text: "http 404 Not Found"},
		{name: "405", status: 405, class: peer.ClassNotFound, outcome: peer.Fail},
		{name: "408", status: 408, class: peer.ClassHTTPOther, outcome: peer.Fail},
		{name: "409", status: 409, class: peer.ClassConflict, outcome: peer.Fail, text: "http 409 Conflict"},
		{name: "413", status: 413, class: peer.ClassTooLarge, outcome: peer.Fail},
		{name: "418", status: 418, class: peer.ClassHTTPOther, outcome: peer.Fail},
		{name: "429", status: 429, body: "slow down", class: peer.ClassRateLimited, outcome: peer.Fail, text: "http 429 Too Many Requests"},
		{name: "429 quota body", status: 429, body: `{"error":"QUOTA_EXCEEDED","reset_at":"2026-06-16T00:00:00+00:00"}`, class: peer.ClassQuota, outcome: peer.Fail},
		{name: "429 quota header", status: 429, header: http.Header{"X-Quota-Reset-At": {"2026-06-16T00:00:00+00:00"}}, class: peer.ClassQuota, outcome: peer.Fail},
		{name: "429 other error", status: 429, body: `{"error":"TOO_FAST"}`, class: peer.ClassRateLimited, outcome: peer.Fail},
		{name: "301", status: 301, class: peer.ClassRedirect, outcome: peer.Fail, text: "http 301 Moved Permanently"},
		{name: "304", status: 304, class: peer.ClassRedirect, outcome: peer.Fail},
		{name: "307", status: 307, class: peer.ClassRedirect, outcome: peer.Fail},
		{name: "500", status: 500, body: canary, class: peer.ClassServerError, outcome: peer.Unknown, text: "http 500 Internal Server Error"},
		{name: "502", status: 502, class: peer.ClassServerError, outcome: peer.Unknown},
		{name: "503", status: 503, class: peer.ClassUnavailable, outcome: peer.Fail, text: "http 503 Service Unavailable"},
		{name: "504", status: 504, class: peer.ClassServerTimeout, outcome: peer.Unknown, text: "http 504 Gateway Timeout"},
		{name: "599", status: 599, class: peer.ClassServerError, outcome: peer.Unknown, text: "http 599 <unknown status code>"},
		{name: "600", status: 600, class: peer.ClassHTTPOther, outcome: peer.Fail},
		{name: "101", status: 101, class: peer.ClassHTTPOther, outcome: peer.Fail},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := peer.Classify(test.status, test.header, []byte(test.body), test.expect, time.Now())
			if e == nil {
				if test.class != peer.ClassOK {
					t.Fatalf("got an ack, want %s", test.class)
				}
				return
			}
			checkClass(t, e, test.class, test.outcome)
			if e.Status != test.status {
				t.Errorf("status: got %d, want %d", e.Status, test.status)
			}
			if !strings.HasPrefix(e.Error(), test.text) {
				t.Errorf("text: got %q, want it to begin with %q", e, test.text)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e), canary) {
				t.Errorf("the error holds the peer's body: %v", e)
			}
		})
	}
}

func TestClassifyRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 15, 23, 58, 0, 0, time.UTC)
	quota := `{"error":"QUOTA_EXCEEDED","limit":"memories_per_day","current":1000,"max":1000,"reset_at":"2026-06-16T00:00:00+00:00"}`
	for _, test := range []struct {
		name   string
		status int
		header http.Header
		body   string
		want   time.Duration
	}{
		{"503", 503, http.Header{"Retry-After": {"5"}}, "", 5 * time.Second},
		{"503 silent", 503, nil, "", 0},
		{"500", 500, http.Header{"Retry-After": {"5"}}, "", 5 * time.Second},
		{"429", 429, http.Header{"Retry-After": {"5"}}, "", 5 * time.Second},
		{"429 quota body", 429, nil, quota, 2 * time.Minute},
		{"429 quota header", 429, http.Header{"X-Quota-Reset-At": {"2026-06-15T23:59:00+00:00"}}, quota, time.Minute},
		{"200 quota", 200, http.Header{"X-Quota-Reset-At": {"2026-06-15T23:59:00+00:00"}}, `{"quota_refused":3}`, time.Minute},
		{"400 says nothing", 400, http.Header{"Retry-After": {"5"}}, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := peer.Classify(test.status, test.header, []byte(test.body), "", now)
			if e == nil || e.RetryAfter != test.want {
				t.Errorf("got %+v, want retry after %s", e, test.want)
			}
		})
	}
}

func TestClassesAreTotal(t *testing.T) {
	t.Parallel()
	seen := map[peer.Class]bool{}
	for _, class := range peer.Classes() {
		if seen[class] {
			t.Errorf("%s is listed twice", class)
		}
		seen[class] = true
		if outcome := class.Outcome(); outcome < peer.Ack || outcome > peer.Unknown {
			t.Errorf("%s has outcome %s", class, outcome)
		}
		if (class.Outcome() == peer.Ack) != (class == peer.ClassOK) {
			t.Errorf("%s: got outcome %s", class, class.Outcome())
		}
		if class.Refusal() && class.Configuration() {
			t.Errorf("%s is both a refusal of the entry and a matter of configuration", class)
		}
		if class.Refusal() && class.Outcome() == peer.Unknown {
			t.Errorf("%s is a refusal of unknown fate", class)
		}
		if (class.Hint() == "") != (class == peer.ClassOK) {
			t.Errorf("%s: got hint %q", class, class.Hint())
		}
		if strings.Trim(string(class), "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%s is not snake_case", class)
		}
	}
	if len(seen) != 28 {
		t.Errorf("got %d classes, want 28: a new class needs an outcome, a hint and a row in the tests", len(seen))
	}
	if got := peer.Class("x").Outcome(); got != peer.Unknown {
		t.Errorf("unknown class: got %s, want unknown", got)
	}
	if got := peer.Class("x").Hint(); got != "" {
		t.Errorf("unknown class: got hint %q, want none", got)
	}
}

func TestOutcomeString(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[peer.Outcome]string{
		peer.Ack: "ack", peer.IDDrift: "id_drift", peer.Fail: "fail", peer.Unknown: "unknown", 0: "outcome(0)",
	} {
		if got := outcome.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestClassOfForeignErrors(t *testing.T) {
	t.Parallel()
	e := peer.Classify(503, nil, nil, "", time.Now())
	for _, test := range []struct {
		name string
		err  error
		want peer.Class
	}{
		{"nil", nil, peer.ClassOK},
		{"wrapped", fmt.Errorf("push: %w", e), peer.ClassUnavailable},
		{"joined", errors.Join(errors.New("x"), e), peer.ClassUnavailable},
		{"deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), peer.ClassTimeout},
		{"canceled", context.Canceled, peer.ClassCanceled},
		{"other", io.EOF, peer.ClassConnectionLost},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := peer.ClassOf(test.err); got != test.want {
				t.Errorf("class: got %s, want %s", got, test.want)
			}
			if got := peer.OutcomeOf(test.err); got != test.want.Outcome() {
				t.Errorf("outcome: got %s, want %s", got, test.want.Outcome())
			}
		})
	}
}

// FuzzClassify checks that the judgement is total and pure, acknowledges only a 2xx JSON object, and quotes nothing.
func FuzzClassify(f *testing.F) {
	f.Add(200, "", "", okAnswer, "m-1")
	f.Add(200, "gzip", "", okAnswer, "")
	f.Add(200, "", "", `{"ids":["m-2"],"skipped":1}`, "m-1")
	f.Add(429, "", "7", `{"error":"QUOTA_EXCEEDED","reset_at":"2026-06-16T00:00:00Z"}`, "")
	f.Add(401, "", "", "x_memory_nonce_replay", "")
	f.Add(503, "", "Mon, 15 Jun 2026 23:55:30 GMT", "\x1b[31m", "")
	f.Add(-1, "", "", "", "")
	f.Fuzz(func(t *testing.T, status int, encoding, retryAfter, body, expect string) {
		header := http.Header{"Content-Encoding": {encoding}, "Retry-After": {retryAfter}}
		now := time.Unix(1_781_000_000, 0)
		e := peer.Classify(status, header, []byte(body), expect, now)
		if e == nil {
			trimmed := strings.TrimSpace(body)
			if status < 200 || status > 299 || !strings.HasPrefix(trimmed, "{") || !strings.HasSuffix(trimmed, "}") {
				t.Fatalf("status %d with body %q is an ack", status, body)
			}
			return
		}
		if e.Class == peer.ClassOK || e.Outcome() == peer.Ack {
			t.Errorf("an error of class %s and outcome %s", e.Class, e.Outcome())
		}
		if again := peer.Classify(status, header, []byte(body), expect, now); again == nil || again.Error() != e.Error() {
			t.Errorf("judged twice: got %v, want %v", again, e)
		}
		for _, c := range []byte(e.Error()) {
			if c < ' ' || c > '~' {
				t.Fatalf("the text holds byte %#x: %q", c, e)
			}
		}
		if len(e.Error()) > 300 {
			t.Errorf("the text has %d bytes", len(e.Error()))
		}
	})
}

// A push of several entries is acknowledged only if the answer, should it list ids, lists them all.
func TestPushOfSeveralExpectsAllIDs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ids  string
		want peer.Class
	}{
		{`[]`, peer.ClassOK},
		{`["b","a","c"]`, peer.ClassOK},
		{`["a"]`, peer.ClassIDDrift},
		{`["elsewhere"]`, peer.ClassIDDrift},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"applied":2,"ids":`+c.ids+`}`)
		}))
		t.Cleanup(server.Close)
		client, err := peer.New(peer.Config{
			ID: "a", URL: server.URL, SenderID: "ai:leader", AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.CloseIdle)
		err = client.Post(t.Context(), peer.Request{Body: []byte(`{}`), ExpectIDs: []string{"a", "b"}})
		if got := peer.ClassOf(err); got != c.want {
			t.Errorf("answer with ids %s: got %s, want %s", c.ids, got, c.want)
		}
	}
}
