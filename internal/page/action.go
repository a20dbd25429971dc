package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
)

const (
	// actionTimeout bounds what an action does in the database.
	actionTimeout = 10 * time.Second

	// maxActionBytes bounds the body of an action.
	maxActionBytes = 4 << 10
)

// done is the answer of an action.
type done struct {
	Changed bool   `json:"changed"` // false: it was so already
	Message string `json:"message"`
}

// refusedAction is why an action is not tried at all.
type refusedAction struct {
	code int
	text string
}

func (e *refusedAction) Error() string { return e.text }

// act does what an operator asks for and answers. Errors of the database are logged, and not told.
func (p *page) act(w http.ResponseWriter, r *http.Request, do func(ctx context.Context) (done, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
	defer cancel()
	d, err := do(ctx)
	p.reader.forget()
	logged := p.cfg.Logger.With(slog.String("request", r.Method+" "+r.URL.Path))
	if err == nil {
		logged.InfoContext(ctx, "status page: an operator changed something", slog.Bool("changed", d.Changed), slog.String("result", d.Message))
		answer(http.StatusOK, d).write(w)
		return
	}
	code, text := http.StatusServiceUnavailable, "the database did not do it: see the worker's log"
	switch refused, ok := errors.AsType[*refusedAction](err); {
	case ok:
		code, text = refused.code, refused.text
	case errors.Is(err, jobs.ErrUnknownPeer), errors.Is(err, river.ErrNotFound):
		code, text = http.StatusNotFound, err.Error()
	case errors.Is(err, jobs.ErrPeerAway):
		code, text = http.StatusConflict, err.Error()
	default:
		logged.WarnContext(ctx, "status page: what an operator asked for was not done", slog.String("error", err.Error()))
	}
	answer(code, failure{text}).write(w)
}

// body reads the JSON object of an action into what.
func body(w http.ResponseWriter, r *http.Request, what any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &refusedAction{http.StatusUnsupportedMediaType, "send the request as application/json"}
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxActionBytes))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(what)
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return &refusedAction{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request is longer than %d bytes", maxActionBytes)}
	}
	if err != nil {
		return &refusedAction{http.StatusBadRequest, "the request is not the JSON object of this action: see docs/page.md"}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return &refusedAction{http.StatusBadRequest, "the request is more than one JSON object"}
	}
	return nil
}

type peerSwitch func(ctx context.Context, pool *pgxpool.Pool, id string) (changed bool, err error)

func (p *page) pause(w http.ResponseWriter, r *http.Request) {
	p.switchPeer(w, r, jobs.PausePeer, "is paused", "is paused already")
}

func (p *page) resume(w http.ResponseWriter, r *http.Request) {
	p.switchPeer(w, r, jobs.ResumePeer, "is resumed", "is not paused")
}

func (p *page) switchPeer(w http.ResponseWriter, r *http.Request, do peerSwitch, changed, unchanged string) {
	p.act(w, r, func(ctx context.Context) (done, error) {
		id := r.PathValue("peer")
		ok, err := do(ctx, p.cfg.Pool, id)
		if err != nil {
			return done{}, err
		}
		text := changed
		if !ok {
			text = unchanged
		}
		return done{ok, id + " " + text}, nil
	})
}

// resync needs the peer's id a second time: the peer has only a part of the memories until it is over.
func (p *page) resync(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func(ctx context.Context) (done, error) {
		var ask struct {
			Confirm string `json:"confirm"`
		}
		if err := body(w, r, &ask); err != nil {
			return done{}, err
		}
		id := r.PathValue("peer")
		if ask.Confirm != id {
			return done{}, &refusedAction{http.StatusBadRequest, "not confirmed: the peer will have only a part of the memories until it is done; send its id as confirm"}
		}
		if err := jobs.ResyncPeer(ctx, p.cfg.Pool, id); err != nil {
			return done{}, err
		}
		return done{true, id + " is brought the current state: a worker begins within a second or so"}, nil
	})
}

func (p *page) retryRefusals(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func(ctx context.Context) (done, error) {
		var ask struct {
			Peer  string     `json:"peer"`
			Class peer.Class `json:"class"`
		}
		if err := body(w, r, &ask); err != nil {
			return done{}, err
		}
		if ask.Peer == "" {
			return done{}, &refusedAction{http.StatusBadRequest, "name the peer"}
		}
		if ask.Class != "" && !slices.Contains(peer.Classes(), ask.Class) {
			return done{}, &refusedAction{http.StatusBadRequest, fmt.Sprintf("%q is none of the classes of answers: see docs/answers.md", ask.Class)}
		}
		n, err := jobs.RetryRefusals(ctx, p.cfg.Pool, jobs.RefusalFilter{Peer: ask.Peer, Class: ask.Class})
		if err != nil {
			return done{}, err
		}
		if n == 0 {
			return done{false, ask.Peer + " refuses nothing of that kind any more"}, nil
		}
		return done{true, fmt.Sprintf("%s that %s refuses: tried again within a second or so", entries(n), ask.Peer)}, nil
	})
}

func (p *page) resumeFanOuts(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func(ctx context.Context) (done, error) {
		if err := p.cfg.Client.QueueResume(ctx, jobs.FanOutQueue, nil); err != nil {
			return done{}, fmt.Errorf("resume the queue %s: %w", jobs.FanOutQueue, err)
		}
		return done{true, "the queue " + jobs.FanOutQueue + " is resumed"}, nil
	})
}
