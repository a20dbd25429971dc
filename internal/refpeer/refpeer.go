// Package refpeer is a reference receiver of the ai-memory federation protocol
// (version 0.7.1): the peer that quorumbox is tested and measured against. It
// keeps its state and its own log of what it applied in one SQLite file, so
// that a test can compare both with the writer's after any crash, and it can
// be told to misbehave.
//
// It applies the lists memories and deletions; the other lists of a push are
// read, checked for shape and size, and left alone.
//
// Differences to a daemon, on purpose: a push is one transaction (a daemon
// applies item by item), and the paths under /_ref/ show all rows, the apply
// log, counters and the faults that are set.
package refpeer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
)

// Switch is a setting that is on or off, with a default of its own.
type Switch int

// The positions of a Switch.
const (
	Default Switch = iota
	On
	Off
)

func (s Switch) isOn(byDefault bool) bool {
	if s == Default {
		return byDefault
	}
	return s == On
}

// Config says where a peer keeps its state and how strict it is. The zero
// value of every field but DataDir behaves as the reference does by default.
type Config struct {
	// DataDir is the folder of the peer's file. It is made if it does not
	// exist. Two peers must not share one. Required.
	DataDir string

	// ID names the peer in its answers and logs. Defaults to "ref:peer1".
	ID string

	// APIKey is what requests must carry in x-api-key or ?api_key=. Empty: no
	// key is asked for. /api/v1/health never asks.
	APIKey string

	// KeysDir holds the enrolled verifying keys: <agent id>.pub, 32 raw bytes.
	// Empty: no sender is enrolled. Keys may come and go at run time.
	KeysDir string

	// RequireSignature checks signatures and, with them, nonces. Default: on.
	RequireSignature Switch

	// RequireNonce refuses a signed push without a nonce. Default: on.
	RequireNonce Switch

	// RequireEnrollment refuses unsigned pushes of senders without a key.
	// Default: off, as in 0.7.x (0.8 turned it on).
	RequireEnrollment Switch

	// QuotaPerDay is how many memories an author may send into one namespace
	// a UTC day, repeated ones included. 0: no limit. Default: 0.
	QuotaPerDay int

	// Sync makes the file survive a crash of the machine, but for the last
	// commits. Off leaves writing to the operating system: what was answered
	// still survives a kill of the peer, and the disk is left to others, as
	// measurements on one machine want. Default: on.
	Sync Switch

	// Faults are set from the start; see [Peer.SetFaults].
	Faults Faults

	// Logger gets warnings about pushes. Nil: nothing is logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.ID == "" {
		c.ID = "ref:peer1"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("a peer needs a data folder: set DataDir"))
	}
	if !validAgentID(c.ID) {
		errs = append(errs, fmt.Errorf("peer id %q: use 1 to 128 of the characters A-Z a-z 0-9 _ - : @ . /, without '..' "+
			"and not starting with '/'", c.ID))
	}
	if c.QuotaPerDay < 0 {
		errs = append(errs, fmt.Errorf("quota per day %d: must be 0 (no limit) or more", c.QuotaPerDay))
	}
	return errors.Join(errs...)
}

// Peer is a running receiver. It is safe for concurrent use. Pushes are
// applied one after the other.
type Peer struct {
	cfg      Config
	store    *store
	steps    []step
	nonces   *nonceWindow
	keys     *keyring
	apiKey   *apiKey
	faults   faultBox
	counters counters
	accepts  atomic.Int64
	handler  http.Handler

	closing   chan struct{} // closed by Close
	closeOnce func() error
}

// Open opens or creates the peer's file, reads its nonces and starts the one
// goroutine that writes. ctx bounds the opening only. The caller must call [Peer.Close].
func Open(ctx context.Context, cfg Config) (_ *Peer, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	p := &Peer{
		cfg:    cfg,
		steps:  steps(cfg.QuotaPerDay),
		nonces: newNonceWindow(),
		apiKey: newAPIKey(cfg.APIKey),

		closing: make(chan struct{}),
	}
	p.closeOnce = sync.OnceValue(p.close)
	if err := p.SetFaults(cfg.Faults); err != nil {
		return nil, err
	}
	if p.keys, err = openKeyring(cfg.KeysDir); err != nil {
		return nil, err
	}
	if p.store, err = openStore(ctx, cfg.DataDir, cfg.Sync); err != nil {
		return nil, errors.Join(err, p.keys.close())
	}
	if err := p.nonces.load(ctx, p.store); err != nil {
		return nil, errors.Join(err, p.store.close(), p.keys.close())
	}
	p.handler = p.routes()
	return p, nil
}

// Close ends what waits in a fault, waits for a running push and closes the
// file. Requests that come later are answered 500. Further calls do nothing and
// return the same.
func (p *Peer) Close() error { return p.closeOnce() }

func (p *Peer) close() error {
	close(p.closing)
	if err := errors.Join(p.store.close(), p.keys.close()); err != nil {
		return fmt.Errorf("close peer: %w", err)
	}
	return nil
}

// SetFaults replaces the faults; nil clears them.
func (p *Peer) SetFaults(faults Faults) error {
	return p.faults.set(faults)
}

// Faults returns the faults that are set, with the counts that are left.
func (p *Peer) Faults() Faults { return p.faults.get() }

// Handler serves the protocol and the paths under /_ref/.
func (p *Peer) Handler() http.Handler { return p.handler }

func (p *Peer) routes() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("POST /api/v1/sync/push", p.handlePush)
	api.HandleFunc("GET /api/v1/health", p.handleHealth)
	api.HandleFunc("GET /api/v1/memories/{id}", p.guarded(p.handleMemory))
	api.HandleFunc("GET /api/v1/memories", p.guarded(p.handleList))
	api.HandleFunc("GET /api/v1/stats", p.guarded(p.handleStats))

	ref := http.NewServeMux()
	ref.HandleFunc("GET /_ref/memories", p.guarded(p.handleRefMemories))
	ref.HandleFunc("GET /_ref/log", p.guarded(p.handleRefLog))
	ref.HandleFunc("GET /_ref/counters", p.guarded(p.handleRefCounters))
	ref.HandleFunc("GET /_ref/faults", p.guarded(p.handleGetFaults))
	ref.HandleFunc("PUT /_ref/faults", p.guarded(p.handlePutFaults))
	ref.HandleFunc("DELETE /_ref/faults", p.guarded(p.handleDeleteFaults))

	mux := http.NewServeMux()
	mux.Handle("/_ref/", http.NewCrossOriginProtection().Handler(ref))
	mux.Handle("/", p.cutWhenDown(api))
	return mux
}

// guarded asks for the api key.
func (p *Peer) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !p.apiKey.admits(r) {
			errorReply(http.StatusUnauthorized, msgAPIKey).write(w)
			return
		}
		next(w, r)
	}
}

// cutWhenDown cuts requests other than pushes while the fault down is set.
func (p *Peer) cutWhenDown(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost && p.faults.down() {
			cut()
		}
		next.ServeHTTP(w, r)
	})
}
