package peer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

func TestContextEnds(t *testing.T) {
	t.Parallel()
	bare := errors.New("bare")
	wrapping := fmt.Errorf("ack deadline: %w", context.DeadlineExceeded)
	stopping := fmt.Errorf("stopping: %w", context.Canceled)
	const short = 100 * time.Millisecond
	tests := []struct {
		name  string
		ctx   func(parent context.Context) (context.Context, context.CancelFunc)
		class peer.Class
		is    []error
	}{
		{"deadline", func(p context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(p, short)
		}, peer.ClassTimeout, []error{context.DeadlineExceeded}},
		{"deadline with a wrapping cause", func(p context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadlineCause(p, time.Now().Add(short), wrapping)
		}, peer.ClassTimeout, []error{context.DeadlineExceeded, wrapping}},
		{"deadline with a bare cause", func(p context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadlineCause(p, time.Now().Add(short), bare)
		}, peer.ClassTimeout, []error{context.DeadlineExceeded, bare}},
		{"canceled with a deadline as the cause", func(p context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(p)
			time.AfterFunc(short, func() { cancel(wrapping) })
			return ctx, func() { cancel(nil) }
		}, peer.ClassTimeout, []error{context.DeadlineExceeded, wrapping}},
		{"canceled", func(p context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(p)
			time.AfterFunc(short, cancel)
			return ctx, cancel
		}, peer.ClassCanceled, []error{context.Canceled}},
		{"canceled with a cause", func(p context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(p)
			time.AfterFunc(short, func() { cancel(stopping) })
			return ctx, func() { cancel(nil) }
		}, peer.ClassCanceled, []error{context.Canceled, stopping}},
		{"canceled with a bare cause", func(p context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(p)
			time.AfterFunc(short, func() { cancel(bare) })
			return ctx, func() { cancel(nil) }
		}, peer.ClassCanceled, []error{context.Canceled, bare}},
		{"parent canceled before a deadline", func(p context.Context) (context.Context, context.CancelFunc) {
			parent, cancelParent := context.WithCancel(p)
			ctx, cancel := context.WithTimeout(parent, time.Hour)
			time.AfterFunc(short, cancelParent)
			return ctx, cancel
		}, peer.ClassCanceled, []error{context.Canceled}},
	}
	hangs := map[string]func(w http.ResponseWriter){
		"before the headers": func(http.ResponseWriter) {},
		"in the body": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"applied":1,`)
			_ = http.NewResponseController(w).Flush()
		},
	}
	for _, test := range tests {
		for where, begin := range hangs {
			t.Run(test.name+" "+where, func(t *testing.T) {
				t.Parallel()
				rec := newRecorder(t, func(_ int, w http.ResponseWriter, r *http.Request) {
					begin(w)
					<-r.Context().Done()
				})
				ctx, cancel := test.ctx(t.Context())
				defer cancel()
				err := newClient(t, rec.URL).Post(ctx, peer.Request{Body: body()})
				e := classified(t, err, test.class, peer.Unknown)
				for _, want := range test.is {
					if !errors.Is(err, want) {
						t.Errorf("errors.Is(%v): got false, want true", want)
					}
				}
				if got := errors.Is(err, context.Canceled); got != (test.class == peer.ClassCanceled) {
					t.Errorf("errors.Is(context.Canceled): got %t for %s", got, e.Class)
				}
				if !strings.HasPrefix(e.Error(), "network: ") {
					t.Errorf("text: got %q, want network: ...", e)
				}
			})
		}
	}
}

func TestContextEndsBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	client := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.MaxConns = 1 })

	hanging, release := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Post(hanging, peer.Request{Body: body()}) }()
	waitFor(t, "the first request", func() bool { return len(rec.all()) == 1 })

	// The only connection is taken, so these two wait for it in vain.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := client.Post(ctx, peer.Request{Body: body()})
	checkClass(t, err, peer.ClassConnectTimeout, peer.Fail)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded in its tree", err)
	}
	canceled, cancelNow := context.WithCancel(t.Context())
	cancelNow()
	checkClass(t, client.Post(canceled, peer.Request{Body: body()}), peer.ClassCanceled, peer.Fail)

	release()
	checkClass(t, <-done, peer.ClassCanceled, peer.Unknown)
	if got := len(rec.all()); got != 1 {
		t.Errorf("requests: got %d, want 1", got)
	}
}
