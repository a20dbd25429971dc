package peer_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
)

func TestPushRetriesOnce(t *testing.T) {
	t.Parallel()
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
	}
	text := func(s string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	drop := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	asks := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	type script []func(http.ResponseWriter, *http.Request)
	tests := []struct {
		name    string
		script  script
		class   peer.Class
		outcome peer.Outcome
		doubt   bool
		text    string
	}{
		{"ack", script{text(okAnswer)}, peer.ClassOK, peer.Ack, false, ""},
		{"fails once", script{status(503), text(okAnswer)}, peer.ClassOK, peer.Ack, false, ""},
		{"bad request once", script{status(400), text(okAnswer)}, peer.ClassOK, peer.Ack, false, ""},
		{"lost once", script{drop, text(okAnswer)}, peer.ClassOK, peer.Ack, true, ""},
		{"nonce replay once", script{text401(), text(okAnswer)}, peer.ClassOK, peer.Ack, true, ""},
		{
			"fails twice",
			script{status(503), status(401)},
			peer.ClassUnauthorized, peer.Fail, false,
			"first: http 503 Service Unavailable; retry: http 401 Unauthorized",
		},
		{
			"in doubt, then a failure",
			script{drop, status(503)},
			peer.ClassUnavailable, peer.Unknown, true,
			"first: network: the connection broke before the answer was complete; retry: http 503 Service Unavailable",
		},
		{"in doubt, then a refusal", script{status(500), status(400)}, peer.ClassBadRequest, peer.Unknown, true, "first: http 500 Internal"},
		{"drift after a failure", script{status(503), text(`{"ids":["x"]}`)}, peer.ClassIDDrift, peer.IDDrift, false, "first: http 503 Service Unavailable; retry: http 200 OK"},
		{"malformed twice", script{text("<html>"), text("<html>")}, peer.ClassMalformedAnswer, peer.Unknown, true, "first: http 200 OK"},

		{"drift", script{text(`{"ids":["x"]}`)}, peer.ClassIDDrift, peer.IDDrift, false, "http 200 OK"},
		{"skipped", script{text(`{"skipped":1}`)}, peer.ClassSkipped, peer.Fail, false, "http 200 OK: skipped 1"},
		{"unsupported", script{text(`{"unsupported_on_postgres":1}`)}, peer.ClassUnsupported, peer.Fail, false, "http 200 OK"},
		{"quota", script{text(`{"quota_refused":1}`)}, peer.ClassQuota, peer.Fail, false, "http 200 OK"},
		{"asked to wait", script{asks}, peer.ClassUnavailable, peer.Fail, false, "http 503 Service Unavailable"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if n < len(test.script) {
					test.script[n](w, r)
				}
			})
			request := peer.Request{Body: body(), IdempotencyKey: "m-1", ExpectIDs: []string{"m-1"}}
			report, err := newClient(t, rec.URL, signed).PushReport(testContext(t), request)
			e := classified(t, err, test.class, test.outcome)
			if e != nil && !strings.HasPrefix(e.Error(), test.text) {
				t.Errorf("text: got %q, want it to begin with %q", e, test.text)
			}
			if e != nil && e.Attempts() != len(test.script) {
				t.Errorf("attempts of the error: got %d, want %d", e.Attempts(), len(test.script))
			}
			if want := (peer.Report{Attempts: len(test.script), InDoubt: test.doubt}); report != want {
				t.Errorf("report: got %+v, want %+v", report, want)
			}
			got := rec.all()
			if len(got) != len(test.script) {
				t.Fatalf("requests: got %d, want %d", len(got), len(test.script))
			}
			for _, request := range got {
				verify(t, request)
			}
			if len(got) == 2 {
				if pause := got[1].at.Sub(got[0].at); pause < peer.RetryPause {
					t.Errorf("pause: got %s, want at least %s", pause, peer.RetryPause)
				}
				if got[0].header.Get("X-Memory-Nonce") == got[1].header.Get("X-Memory-Nonce") {
					t.Error("both attempts have the same nonce")
				}
				if diff := cmp.Diff(string(got[0].body), string(got[1].body)); diff != "" {
					t.Errorf("bodies differ:\n%s", diff)
				}
			}
		})
	}
}

func text401() func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"error":"x_memory_nonce_replay"}`, http.StatusUnauthorized)
	}
}

func TestErrorLogsItself(t *testing.T) {
	t.Parallel()
	e := peer.Classify(503, http.Header{"Retry-After": {"7"}}, nil, "", time.Now())
	group := e.LogValue().Group()
	keys := make([]string, 0, len(group))
	for _, attr := range group {
		keys = append(keys, attr.Key)
	}
	if diff := cmp.Diff([]string{"class", "outcome", "reason", "status", "retry_after"}, keys); diff != "" {
		t.Errorf("log attributes (-want +got):\n%s", diff)
	}
	if got := e.LogValue().Kind(); got != slog.KindGroup {
		t.Errorf("log value: got %s, want a group", got)
	}
	if e.Hint() != e.Class.Hint() {
		t.Errorf("hint: got %q, want that of the class", e.Hint())
	}
}

// TestPushTimes checks exact times in a bubble with a fake clock.
func TestPushTimes(t *testing.T) {
	t.Parallel()
	const answersAfter = 30 * time.Millisecond
	tests := []struct {
		name     string
		timeout  time.Duration
		cancel   time.Duration // 0 = never
		status   string
		class    peer.Class
		outcome  peer.Outcome
		requests int
		elapsed  time.Duration
	}{
		{"one attempt", time.Hour, 0, "200 OK", peer.ClassOK, peer.Ack, 1, answersAfter},
		{"two attempts", time.Hour, 0, "500 x", peer.ClassServerError, peer.Unknown, 2, 2*answersAfter + peer.RetryPause},
		{"the pause ends with the deadline", answersAfter + peer.RetryPause, 0, "500 x", peer.ClassServerError, peer.Unknown, 1, answersAfter},
		{
			"the retry runs into the deadline", answersAfter + peer.RetryPause + time.Millisecond, 0, "503 x",
			peer.ClassTimeout, peer.Unknown, 2, answersAfter + peer.RetryPause + time.Millisecond,
		},
		{"canceled in the pause", time.Hour, 2 * answersAfter, "503 x", peer.ClassUnavailable, peer.Fail, 1, 2 * answersAfter},
		{"deadline in the first attempt", answersAfter - 1, 0, "200 OK", peer.ClassTimeout, peer.Unknown, 1, answersAfter - 1},
		{"deadline after the first attempt", answersAfter + 1, 0, "200 OK", peer.ClassOK, peer.Ack, 1, answersAfter},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				pipe := newPipePeer(func(conn net.Conn, in *bufio.Reader) {
					for {
						if _, err := readRequest(in); err != nil {
							return
						}
						requests++
						timer := time.NewTimer(answersAfter)
						<-timer.C
						if _, err := fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}", test.status); err != nil {
							return
						}
					}
				})
				client := newClient(t, "http://peer.invalid", signed)
				peer.SetDial(client, pipe.dial)
				ctx, cancel := context.WithTimeout(t.Context(), test.timeout)
				defer cancel()
				if test.cancel != 0 {
					time.AfterFunc(test.cancel, cancel)
				}
				start := time.Now()
				err := client.Push(ctx, peer.Request{Body: body()})
				elapsed := time.Since(start)
				checkClass(t, err, test.class, test.outcome)
				if elapsed != test.elapsed {
					t.Errorf("elapsed: got %s, want %s", elapsed, test.elapsed)
				}
				client.CloseIdle()
				pipe.group.Wait()
				if requests != test.requests {
					t.Errorf("requests: got %d, want %d", requests, test.requests)
				}
			})
		})
	}
}

func TestPostIsBoundedWithoutADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipe := newPipePeer(func(_ net.Conn, in *bufio.Reader) {
			for {
				if _, err := readRequest(in); err != nil {
					return
				}
			}
		})
		client := newClient(t, "http://peer.invalid")
		peer.SetDial(client, pipe.dial)
		start := time.Now()
		err := client.Post(t.Context(), peer.Request{Body: body()})
		checkClass(t, err, peer.ClassTimeout, peer.Unknown)
		if elapsed := time.Since(start); elapsed != peer.AttemptLimit {
			t.Errorf("elapsed: got %s, want %s", elapsed, peer.AttemptLimit)
		}
		client.CloseIdle()
		pipe.group.Wait()
	})
}
