package verify

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quorumbox/internal/peer"
)

// asking returns a request that the answers meet in their order, the last one again and again, and what counts them.
func asking(answers ...error) (request func(context.Context) (string, error), count *int) {
	count = new(int)
	return func(context.Context) (string, error) {
		err := answers[min(*count, len(answers)-1)]
		*count++
		return "answer", err
	}, count
}

func TestAsk(t *testing.T) {
	t.Parallel()
	away := &peer.Error{Class: peer.ClassRefusedConnection}
	wait := &peer.Error{Class: peer.ClassUnavailable, Status: 503, RetryAfter: 10 * time.Second}
	long := &peer.Error{Class: peer.ClassRateLimited, Status: 429, RetryAfter: time.Hour}
	forbidden := &peer.Error{Class: peer.ClassForbidden, Status: 403}
	for _, tt := range []struct {
		name        string
		answers     []error
		err         error
		least, most time.Duration
		requests    int // 0: any
	}{
		{"at once", []error{nil}, nil, 0, 0, 1},
		{"after a pause", []error{away, away, nil}, nil, 100 * time.Millisecond, 2 * time.Second, 3},
		{"after the pause that the peer asks for", []error{wait, nil}, nil, 10 * time.Second, 12 * time.Second, 2},
		{"not later than it may ask for", []error{long, nil}, nil, 30 * time.Second, 32 * time.Second, 2},
		{"refused", []error{forbidden}, forbidden, 0, 0, 1},
		{"another error", []error{errRepeats}, errRepeats, 0, 0, 1},
		{"never", []error{away}, away, 20 * time.Second, 2 * time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var requests int64
				p := &paced{pace: newPace(1000), count: &requests, step: func() {}}
				request, count := asking(tt.answers...)
				start := time.Now()
				_, err := ask(t.Context(), p, request)
				if took := time.Since(start); took < tt.least || took > tt.most || !errors.Is(err, tt.err) {
					t.Errorf("got %v after %s, want %v after %s to %s", err, took, tt.err, tt.least, tt.most)
				}
				if tt.requests != 0 && *count != tt.requests || requests != int64(*count) {
					t.Errorf("got %d requests, and %d counted, want %d", *count, requests, tt.requests)
				}
			})
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var requests int64
		p := &paced{pace: newPace(4), count: &requests, step: func() {}}
		request, _ := asking(nil)
		start := time.Now()
		for range 9 {
			if _, err := ask(t.Context(), p, request); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("got %s for 9 requests at 4 a second, want 2s", took)
		}
		time.Sleep(time.Hour) // no burst afterwards
		start = time.Now()
		for range 5 {
			_, _ = ask(t.Context(), p, request)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("got %s for 5 requests after a pause, want 1s", took)
		}
	})
}

func TestAskEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(stop) })
		var requests int64
		p := &paced{pace: newPace(0.1), count: &requests, step: func() {}}
		request, _ := asking(nil)
		_, _ = ask(ctx, p, request)
		start := time.Now()
		if _, err := ask(ctx, p, request); !errors.Is(err, stop) || time.Since(start) != time.Second || requests != 1 {
			t.Errorf("got %v after %s and %d requests, want %v after 1s and 1", err, time.Since(start), requests, stop)
		}
	})
}
