package refpeer

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
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

// Backend is a storage of the reference.
type Backend string

// The backends. With Postgres (0.7.x), only memories, deletions and links are
// applied; the other lists are counted in unsupported_on_postgres, still with
// 200.
const (
	BackendSQLite   Backend = "sqlite"
	BackendPostgres Backend = "postgres"
)

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
	// a UTC day, repeated ones included. 0: no limit. Default: 0 (a daemon: 1000).
	QuotaPerDay int

	// QuotaBytesPerDay is how many bytes of memories, as sent, the same may
	// have. 0: no limit. Default: 0 (a daemon: 100 MiB).
	QuotaBytesPerDay int

	// QuotaLinksPerDay is how many links an observer (else the sender) may send
	// that start in one namespace; the others are counted in quota_refused.
	// 0: no limit. Default: 0 (a daemon: 5000).
	QuotaLinksPerDay int

	// MaxCollection is how many elements one list of a push may have.
	// Default: 1000.
	MaxCollection int

	// EmbeddingDim is the dimension of the receiver's model. Default: 0, there
	// is no model and no embedding is kept.
	EmbeddingDim int

	// Backend is the storage that the receiver pretends to have. Default:
	// [BackendSQLite].
	Backend Backend

	// Attestation lists the peers that may push and pull. Nil: no allowlist.
	Attestation Attestation

	// TrustBodyAgentID takes the sender_agent_id of a body for granted, with or
	// without x-peer-id. Default: off.
	TrustBodyAgentID Switch

	// SyncTrustPeer lets sync/since give everything away if there is no
	// Attestation. Default: off.
	SyncTrustPeer Switch

	// TrustBundleDir holds the roots that credentials are verified with:
	// <issuer id>.pub, 32 raw bytes. Empty: no credential counts.
	TrustBundleDir string

	// TrustDomain is the only one whose credentials count. Empty: any.
	TrustDomain string

	// AdminAgents may read the archive and the counts, as x-agent-id. Empty:
	// anybody may.
	AdminAgents []string

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
	if c.MaxCollection == 0 {
		c.MaxCollection = maxItems
	}
	c.Backend = cmp.Or(c.Backend, BackendSQLite)
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
	for _, quota := range [...]struct {
		what string
		n    int
	}{
		{"quota per day", c.QuotaPerDay}, {"quota of bytes per day", c.QuotaBytesPerDay}, {"quota of links per day", c.QuotaLinksPerDay},
	} {
		if quota.n < 0 {
			errs = append(errs, fmt.Errorf("%s %d: must be 0 (no limit) or more", quota.what, quota.n))
		}
	}
	if c.MaxCollection < 1 {
		errs = append(errs, fmt.Errorf("max collection %d: must be 1 or more", c.MaxCollection))
	}
	if c.EmbeddingDim < 0 {
		errs = append(errs, fmt.Errorf("embedding dim %d: must be 0 (no model) or more", c.EmbeddingDim))
	}
	if c.Backend != BackendSQLite && c.Backend != BackendPostgres {
		errs = append(errs, fmt.Errorf("backend %q: use sqlite or postgres", c.Backend))
	}
	if c.TrustDomain != "" && c.TrustBundleDir == "" {
		errs = append(errs, errors.New("a trust domain needs a trust bundle: set TrustBundleDir"))
	}
	for _, agent := range c.AdminAgents {
		if !validAgentID(agent) {
			errs = append(errs, fmt.Errorf("admin agent %q is no agent id", agent))
		}
	}
	errs = append(errs, c.Attestation.validate())
	return errors.Join(errs...)
}
