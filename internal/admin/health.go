package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/health"
	"quorumbox/internal/status"
	"quorumbox/migrations"
)

const (
	// readyTimeout bounds one reading of the database for a probe. Give probes more: 5 s.
	readyTimeout = 3 * time.Second

	// readyFor is how long a reading holds: all probes of that time share it, whoever asks.
	readyFor = 2 * time.Second

	// probeIdle is how long the connection for these readings is kept without a probe: above the usual pause between two.
	probeIdle = time.Minute

	// stuckLogEvery is how often a line tells of loops that do not turn.
	stuckLogEvery = time.Minute
)

// What /livez and /readyz say, beside "ok" and the names of loops: nothing else.
const (
	DatabaseUnreachable = "database_unreachable" // no connection, or no answer in time
	DatabaseError       = "database_error"       // it answers with an error, such as missing rights
	SchemaOutdated      = "schema_outdated"      // it lacks migrations
	DispatchStalled     = "dispatch_stalled"     // entries wait, and nothing of their lane is dispatched
	DecisionStalled     = "decision_stalled"     // batches get no verdict
	FanOutPaused        = "fan_out_paused"       // by an operator; no reason not to be ready
)

// reading is what the database said. It never changes.
type reading struct {
	at      time.Time
	reasons []string // not to be ready
	notes   []string // that change nothing
	away    bool     // the database does not answer: what waits for it waits in vain
}

// reader reads the database for probes, once in a while, on a connection of its own: the worker's may all be taken by what the probe is to find.
type reader struct {
	expected migrations.Expected
	limits   *status.Limits // nil: progress is not judged
	logger   *slog.Logger
	pool     *pgxpool.Pool // set before the first request; one connection

	turn chan struct{} // capacity 1: held by the one who reads
	last reading       // guarded by turn
}

func newReader(cfg Config) (*reader, error) {
	expected, err := migrations.NewExpected()
	if err != nil {
		return nil, err
	}
	return &reader{expected: expected, limits: cfg.Progress, logger: cfg.Logger, turn: make(chan struct{}, 1)}, nil
}

// open makes the connection's pool, like that of the pages. It connects when it is needed. The caller closes it.
func (r *reader) open(ctx context.Context, like *pgxpool.Pool) (err error) {
	cfg := like.Config()
	cfg.MaxConns, cfg.MinConns, cfg.MinIdleConns, cfg.MaxConnIdleTime = 1, 0, 0, probeIdle
	cfg.ConnConfig.ConnectTimeout = readyTimeout // or an attempt would take the only connection for minutes
	if r.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return fmt.Errorf("open a connection for probes: %w", err)
	}
	return nil
}

// read returns a reading that is at most readyFor old. ok is false if ctx ended first.
func (r *reader) read(ctx context.Context) (now reading, ok bool) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return reading{}, false
	}
	defer func() { <-r.turn }()
	if !r.last.at.IsZero() && time.Since(r.last.at) < readyFor {
		return r.last, true
	}
	next, err := r.ask(ctx)
	if ctx.Err() != nil {
		return reading{}, false
	}
	r.tell(ctx, next, err)
	r.last = next
	return next, true
}

func (r *reader) ask(ctx context.Context) (next reading, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	pending, err := r.expected.Pending(ctx, r.pool)
	next.at = time.Now()
	switch {
	case err != nil:
		next.reasons, next.away = databaseReason(err)
		return next, err
	case pending > 0:
		next.reasons = []string{SchemaOutdated}
		return next, nil
	case r.limits == nil:
		return next, nil
	}
	progress, err := status.ReadProgress(ctx, r.pool, *r.limits)
	next.at = time.Now()
	switch {
	case errors.Is(err, status.ErrNoSchema):
		next.reasons = []string{SchemaOutdated}
		return next, nil
	case err != nil:
		next.reasons, next.away = databaseReason(err)
		return next, err
	case progress.FanOutPaused: // then nothing has to move
		next.notes = []string{FanOutPaused}
		return next, nil
	}
	if progress.Undispatched {
		next.reasons = append(next.reasons, DispatchStalled)
	}
	if progress.Undecided {
		next.reasons = append(next.reasons, DecisionStalled)
	}
	return next, nil
}

// databaseReason tells a database that is away from one that answers with an error.
func databaseReason(err error) (reasons []string, away bool) {
	e, ok := errors.AsType[*pgconn.PgError](err)
	// Class 53 is a lack of resources such as connections, class 57 a server that starts or stops.
	if away = !ok || strings.HasPrefix(e.Code, "53") || strings.HasPrefix(e.Code, "57"); away {
		return []string{DatabaseUnreachable}, true
	}
	return []string{DatabaseError}, false
}

// tell logs when what the database says changes.
func (r *reader) tell(ctx context.Context, next reading, err error) {
	was, is := strings.Join(r.last.reasons, " "), strings.Join(next.reasons, " ")
	switch {
	case was == is:
	case is == "":
		r.logger.InfoContext(ctx, "ready again")
	default:
		attrs := []any{slog.String("reasons", is)}
		if err != nil {
			attrs = append(attrs, slog.String("error", err.Error()))
		}
		r.logger.WarnContext(ctx, "not ready", attrs...)
	}
}

// ready answers GET /readyz: whether the database is there and as expected, and replication moves.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	now, ok := s.reader.read(r.Context())
	switch {
	case !ok: // nobody waits for the answer
		return
	case len(now.reasons) > 0:
		probed(w, http.StatusServiceUnavailable, "not ready", now.reasons)
	default:
		probed(w, http.StatusOK, "ok", now.notes)
	}
}

// live answers GET /livez: whether the process's loops turn. Only if one does not the database is asked: loops that hang because it is away are not stuck, and
// a new process would hang as they do.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Health == nil {
		probed(w, http.StatusOK, "ok", nil)
		return
	}
	stuck := s.cfg.Health.Stuck()
	if len(stuck) == 0 {
		probed(w, http.StatusOK, "ok", nil)
		return
	}
	now, ok := s.reader.read(r.Context())
	switch {
	case !ok:
		return
	case now.away:
		s.cfg.Health.Excuse()
		probed(w, http.StatusOK, "ok", now.reasons)
	default:
		s.stuck.tell(r.Context(), s.cfg.Logger, stuck)
		probed(w, http.StatusServiceUnavailable, "stuck", health.Names(stuck))
	}
}

// probed answers a probe with one line.
func probed(w http.ResponseWriter, code int, text string, why []string) {
	if len(why) > 0 {
		text += ": " + strings.Join(why, " ")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n"))
}

// stuckLog tells of loops that do not turn, once a minute at most.
type stuckLog struct {
	mu   sync.Mutex
	told time.Time
}

func (l *stuckLog) tell(ctx context.Context, logger *slog.Logger, stuck []health.Stuck) {
	now := time.Now()
	l.mu.Lock()
	tell := l.told.IsZero() || now.Sub(l.told) >= stuckLogEvery
	if tell {
		l.told = now
	}
	l.mu.Unlock()
	if !tell {
		return
	}
	for _, s := range stuck {
		logger.ErrorContext(ctx, "a loop does not turn: restart the worker if it stays so",
			slog.String("loop", s.Name), slog.String("detail", s.Detail), slog.Duration("late", s.Late))
	}
}
