// Package refpeer is a reference receiver of the ai-memory federation protocol
// (version 0.7.1): the peer that quorumbox is tested and measured against. It
// keeps its state and its own log of what it applied in one SQLite file, so
// that a test can compare both with the writer's after any crash, and it can
// be told to misbehave.
//
// It applies every list of a push, keeps the archive, links, parked actions,
// namespace standards and embeddings, and answers the calls that read them back.
//
// Differences to a daemon, on purpose: a push is one transaction (a daemon
// applies item by item), and the paths under /_ref/ show all rows, the apply
// log, counters and the faults that are set. What an approved action does is a
// store or a deletion; other actions only change their status.
package refpeer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// Peer is a running receiver. It is safe for concurrent use. Pushes are
// applied one after the other.
type Peer struct {
	cfg      Config
	store    *store
	steps    []step
	nonces   *nonceWindow
	keys     *keyring
	trust    trust
	apiKey   *apiKey
	faults   faultBox
	turns    turns
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
		steps:  steps(cfg),
		nonces: newNonceWindow(),
		apiKey: newAPIKey(cfg.APIKey),

		closing: make(chan struct{}),
	}
	p.closeOnce = sync.OnceValue(p.close)
	if err := p.SetFaults(cfg.Faults); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.closeFiles())
		}
	}()
	if p.keys, err = openKeyring(cfg.KeysDir); err != nil {
		return nil, fmt.Errorf("enrolled keys: %w", err)
	}
	if p.trust.bundle, err = openKeyring(cfg.TrustBundleDir); err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	p.trust.domain = cfg.TrustDomain
	if p.store, err = openStore(ctx, cfg.DataDir, cfg.Sync); err != nil {
		return nil, err
	}
	if err := p.nonces.load(ctx, p.store); err != nil {
		return nil, err
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
	if err := p.closeFiles(); err != nil {
		return fmt.Errorf("close peer: %w", err)
	}
	return nil
}

// closeFiles closes what [Open] got to.
func (p *Peer) closeFiles() error {
	var errs []error
	if p.store != nil {
		errs = append(errs, p.store.close())
	}
	for _, ring := range []*keyring{p.keys, p.trust.bundle} {
		if ring != nil {
			errs = append(errs, ring.close())
		}
	}
	return errors.Join(errs...)
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
	api.HandleFunc("GET /api/v1/stats", p.guarded(p.forAdmins(p.handleStats)))
	api.HandleFunc("GET /api/v1/links/{id}", p.guarded(p.handleLinks))
	api.HandleFunc("GET /api/v1/archive", p.guarded(p.forAdmins(p.handleArchive)))
	api.HandleFunc("GET /api/v1/archive/stats", p.guarded(p.forAdmins(p.handleArchiveStats)))
	api.HandleFunc("GET /api/v1/pending", p.guarded(p.handlePending))
	api.HandleFunc("GET /api/v1/namespaces", p.guarded(p.handleNamespaces))
	api.HandleFunc("GET /api/v1/namespaces/{path...}", p.guarded(p.handleStandard))
	api.HandleFunc("GET /api/v1/sync/since", p.guarded(p.handleSince))
	api.HandleFunc("GET /metrics", p.guarded(p.handleMetrics))

	ref := http.NewServeMux()
	ref.HandleFunc("GET /_ref/memories", p.guarded(p.handleRefMemories))
	ref.HandleFunc("GET /_ref/state", p.guarded(p.handleRefState))
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

// forAdmins asks for an admin's x-agent-id, if there is a list of admins.
func (p *Peer) forAdmins(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if len(p.cfg.AdminAgents) > 0 && !slices.Contains(p.cfg.AdminAgents, r.Header.Get("X-Agent-Id")) {
			errorReply(http.StatusForbidden, "x-agent-id must name an admin agent").write(w)
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
