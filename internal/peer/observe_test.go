package peer_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quorumbox/internal/peer"
)

// observer collects attempts.
type observer struct {
	mu   sync.Mutex
	seen []peer.Attempt
}

func (o *observer) configure(cfg *peer.Config) {
	cfg.Observe = func(a peer.Attempt) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen = append(o.seen, a)
	}
}

func (o *observer) want(tb testing.TB, want ...peer.Attempt) {
	tb.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if diff := cmp.Diff(want, o.seen, cmpopts.IgnoreFields(peer.Attempt{}, "Elapsed")); diff != "" {
		tb.Errorf("attempts (-want +got):\n%s", diff)
	}
	for _, a := range o.seen {
		if a.Elapsed < 0 || a.Connected && a.Elapsed == 0 {
			tb.Errorf("elapsed of %+v: got %s", a, a.Elapsed)
		}
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		switch n {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, okAnswer)
		default:
			_, _ = io.WriteString(w, `{"skipped":1}`)
		}
	})
	var o observer
	client := newClient(t, rec.URL, signed, o.configure)
	request := peer.Request{Body: body()}
	if err := client.Push(testContext(t), request); err != nil {
		t.Fatalf("Push: %v", err)
	}
	checkClass(t, client.Post(testContext(t), request), peer.ClassSkipped, peer.Fail)
	checkClass(t, client.Post(testContext(t), peer.Request{}), peer.ClassInvalidRequest, peer.Fail)
	n := len(request.Body)
	o.want(
		t,
		peer.Attempt{Peer: "peer-a", Class: peer.ClassUnavailable, Status: 503, Bytes: n, Connected: true},
		peer.Attempt{Peer: "peer-a", Class: peer.ClassOK, Status: 201, Bytes: n, Retry: true, Connected: true, Reused: true},
		peer.Attempt{Peer: "peer-a", Class: peer.ClassSkipped, Status: 200, Bytes: n, Connected: true, Reused: true},
		peer.Attempt{Peer: "peer-a", Class: peer.ClassInvalidRequest},
	)
}

func TestObserveWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	n := len(body())
	rec := newRecorder(t, answerOK)
	url := rec.URL
	rec.Close()
	var refused observer
	checkClass(t, newClient(t, url, refused.configure).Post(testContext(t), peer.Request{Body: body()}), peer.ClassRefusedConnection, peer.Fail)
	refused.want(t, peer.Attempt{Peer: "peer-a", Class: peer.ClassRefusedConnection, Bytes: n})

	var gated observer
	client := newClient(t, url, gated.configure, func(cfg *peer.Config) {
		cfg.Gate = func(string, string) error { return errors.New("no") }
	})
	checkClass(t, client.Push(testContext(t), peer.Request{Body: body()}), peer.ClassBlocked, peer.Fail)
	gated.want(t, peer.Attempt{Peer: "peer-a", Class: peer.ClassBlocked, Bytes: n})
}

// The trace of the observer hides neither the deadline nor the cause of the caller's context.
func TestObserveKeepsTheContext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	rec := newRecorder(t, func(int, http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	var o observer
	client := newClient(t, rec.URL, o.configure)
	why := errors.New("why")
	ctx, cancel := context.WithTimeoutCause(testContext(t), 50*time.Millisecond, why)
	defer cancel()
	err := client.Post(ctx, peer.Request{Body: body()})
	checkClass(t, err, peer.ClassTimeout, peer.Unknown)
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the cause in the tree", err)
	}
	o.want(t, peer.Attempt{Peer: "peer-a", Class: peer.ClassTimeout, Bytes: len(body()), Connected: true})
}
