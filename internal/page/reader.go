package page

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"quorumbox/internal/status"
)

const (
	// Fresh is how long a reading, or the failure to get one, answers further requests: however many look at the page, the database is asked once.
	Fresh = time.Second

	// StatementTimeout is how long the database may work on one of the statements of a reading.
	StatementTimeout = 2 * time.Second

	// ReadTimeout bounds a whole reading, with the wait for a connection.
	ReadTimeout = 4 * time.Second
)

// reader reads for all who look at the same time. It is safe for concurrent use.
type reader struct {
	cfg    Config
	flight singleflight.Group

	mu     sync.Mutex // never held while something is read
	latest *reading   // nil: none yet, or an operator has changed something since

	recent recent // belongs to the one reading of the flight
}

// reading is an answer, and when it was made.
type reading struct {
	at   time.Time
	code int
	body []byte
}

func newReader(cfg Config) *reader { return &reader{cfg: cfg} }

// get returns a reading that is [Fresh], a new one if need be.
func (r *reader) get() *reading {
	if l := r.kept(); l != nil {
		return l
	}
	got, _, _ := r.flight.Do("", func() (any, error) {
		if l := r.kept(); l != nil { // somebody has read it just now
			return l, nil
		}
		// It is for everybody who waits, so that nobody's going away ends it.
		ctx, cancel := context.WithTimeout(context.Background(), ReadTimeout)
		defer cancel()
		l := r.read(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.latest = l
		return l, nil
	})
	l, _ := got.(*reading) // nothing else is returned above
	return l
}

func (r *reader) kept() *reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latest != nil && time.Since(r.latest.at) < Fresh {
		return r.latest
	}
	return nil
}

// forget makes the next request read anew, so that who changed something sees it.
func (r *reader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = nil
}

func (r *reader) read(ctx context.Context) *reading {
	fleet, err := status.ReadFleet(ctx, r.cfg.Pool, StatementTimeout, r.recent.marks, recentBatches)
	if err != nil {
		r.cfg.Logger.WarnContext(ctx, "status page: database not read", slog.String("error", err.Error()))
		return answer(http.StatusServiceUnavailable, failure{"the database cannot be read: see the worker's log"})
	}
	r.recent.add(fleet.Decided, fleet.At, recentBatches)
	fleet.Verdicts = r.recent.verdicts(fleet.At)
	fleet.Summary = fleet.Sentence()
	return answer(http.StatusOK, newView(fleet, r.recent.view(fleet.At), r.cfg.Client.ID()))
}

// answer makes a reading of what is said.
func answer(code int, what any) *reading {
	body, err := json.Marshal(what)
	if err != nil { // a number that is none, or a programmer's error
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	return &reading{at: time.Now(), code: code, body: append(body, '\n')}
}

func (r *reading) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(r.code)
	_, _ = w.Write(r.body)
}

func (p *page) get(w http.ResponseWriter, _ *http.Request) { p.reader.get().write(w) }
