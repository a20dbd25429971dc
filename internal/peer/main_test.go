package peer_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorumbox/internal/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	senderID = "ai:leader"
	okAnswer = `{"applied":1,"noop":0,"skipped":0,"quota_refused":0,"dry_run":false}`
)

// loopback is the allow list of tests: their peers live there.
func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// nodeKey is the node key of the published vectors: seed bytes 00..1f.
func nodeKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

// newClient returns a client of the peer at url that may dial loopback; change adjusts its configuration.
func newClient(tb testing.TB, url string, change ...func(*peer.Config)) *peer.Client {
	tb.Helper()
	cfg := peer.Config{ID: "peer-a", URL: url, SenderID: senderID, AllowNets: loopback()}
	for _, f := range change {
		f(&cfg)
	}
	client, err := peer.New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	tb.Cleanup(client.CloseIdle)
	return client
}

func signed(cfg *peer.Config) { cfg.SigningKey = nodeKey() }

// testContext returns a context with a deadline that only a hanging test reaches.
func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

func body() []byte { return peer.Message{}.Encode(senderID) }

// received is a request as the peer saw it.
type received struct {
	at     time.Time
	header http.Header
	path   string
	method string
	length int64
	body   []byte
}

// recorder is an HTTP peer that records each request before its script answers it.
type recorder struct {
	*httptest.Server
	accepts  atomic.Int64
	mu       sync.Mutex
	requests []received
}

// newRecorder starts a recorder whose n-th request (from 0) is answered by answer.
func newRecorder(tb testing.TB, answer func(n int, w http.ResponseWriter, r *http.Request)) *recorder {
	tb.Helper()
	rec := unstartedRecorder(answer)
	rec.Start()
	tb.Cleanup(rec.Close)
	return rec
}

func unstartedRecorder(answer func(n int, w http.ResponseWriter, r *http.Request)) *recorder {
	rec := &recorder{}
	rec.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		rec.mu.Lock()
		n := len(rec.requests)
		rec.requests = append(rec.requests, received{
			at: time.Now(), header: r.Header.Clone(), path: r.URL.RequestURI(), method: r.Method, length: r.ContentLength, body: content,
		})
		rec.mu.Unlock()
		answer(n, w, r)
	}))
	rec.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			rec.accepts.Add(1)
		}
	}
	return rec
}

func (rec *recorder) all() []received {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.requests)
}

func answerOK(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, okAnswer) }

// checkClass fails the test unless err is of the wanted class and outcome.
func checkClass(tb testing.TB, err error, want peer.Class, outcome peer.Outcome) {
	tb.Helper()
	if got := peer.ClassOf(err); got != want {
		tb.Fatalf("class: got %q (%v), want %q", got, err, want)
	}
	if got := peer.OutcomeOf(err); got != outcome {
		tb.Fatalf("outcome of %v: got %s, want %s", err, got, outcome)
	}
}

// classified is checkClass for those who look at the error further. It returns nil for an acknowledgement.
func classified(tb testing.TB, err error, want peer.Class, outcome peer.Outcome) *peer.Error {
	tb.Helper()
	checkClass(tb, err, want, outcome)
	if want == peer.ClassOK {
		return nil
	}
	return asError(tb, err)
}

func asError(tb testing.TB, err error) *peer.Error {
	tb.Helper()
	e, ok := errors.AsType[*peer.Error](err)
	if !ok {
		tb.Fatalf("got %T (%v), want *peer.Error", err, err)
	}
	if len(e.Detail) > 200 {
		tb.Errorf("detail has %d bytes, want at most 200", len(e.Detail))
	}
	return e
}

// waitFor polls a condition until it holds, and fails the test if it does not within 10 s.
func waitFor(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			tb.Fatalf("%s: not within 10s", what)
		}
	}
}
