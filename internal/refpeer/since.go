package refpeer

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Bounds of a pull.
const (
	defaultPull = 500
	maxPull     = 10_000
)

// handleSince answers the memories that changed after a time (compared as
// text), oldest first, as far as the calling peer may see them. The limit cuts
// before that, so a page may be short, as in the reference.
func (p *Peer) handleSince(w http.ResponseWriter, r *http.Request) {
	peerID := peerHeader(r)
	signed := "GET\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery
	auth, tag := p.authenticate(r, peerID, []byte(signed))
	if tag != "" {
		p.refuse(http.StatusUnauthorized, tag).write(w)
		return
	}
	// A nonce is used up by whatever it came with.
	if err := p.store.saveNonceAlone(auth.used); err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	if peerID == "" && !p.cfg.TrustBodyAgentID.isOn(false) {
		p.refuse(http.StatusForbidden, tagPeerHeaderMissing).write(w)
		return
	}
	since := r.FormValue("since")
	if since != "" && !validTime(since) {
		errorReply(http.StatusBadRequest, "since must be an RFC 3339 time; write + as %2B").write(w)
		return
	}
	limit, err := pageNumber(r, "limit", defaultPull)
	if err != nil {
		errorReply(http.StatusBadRequest, err.Error()).write(w)
		return
	}
	pull, err := p.pull(r, peerID, since, min(limit, maxPull))
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, pull)
}

// pulled is the answer of sync/since.
type pulled struct {
	Count              int               `json:"count"`
	Limit              int               `json:"limit"`
	UpdatedSince       *string           `json:"updated_since"`
	EarliestUpdatedAt  *string           `json:"earliest_updated_at"`
	LatestUpdatedAt    *string           `json:"latest_updated_at"`
	Memories           []json.RawMessage `json:"memories"`
	ExcludedForScope   int               `json:"excluded_for_scope"`         // not in a namespace of the peer
	ExcludedForPrivate int               `json:"excluded_for_scope_private"` // in one, but private
	ScopeStatus        scopeStatus       `json:"scope_status"`
}

// scopeStatus says by which rule a pull was cut.
type scopeStatus string

const (
	scoped       scopeStatus = "scoped"
	legacyBypass scopeStatus = "legacy_bypass"
	defaultDeny  scopeStatus = "no_allowlist_default_deny"
)

func (p *Peer) pull(r *http.Request, peerID, since string, limit int) (pulled, error) {
	out := pulled{Limit: limit, Memories: []json.RawMessage{}, ScopeStatus: scoped}
	if since != "" {
		out.UpdatedSince = &since
	}
	if p.cfg.Attestation == nil {
		out.ScopeStatus = legacyBypass
		if !p.cfg.SyncTrustPeer.isOn(false) {
			out.ScopeStatus = defaultDeny
			return out, nil
		}
	}
	rows, err := p.store.readers.QueryContext(r.Context(),
		`select payload from memories where updated_at > ? order by updated_at, id limit ?`, since, limit)
	if err != nil {
		return out, fmt.Errorf("read memories: %w", err)
	}
	err = eachMemory(rows, func(m *memory) error {
		if out.ScopeStatus == scoped {
			shared, err := m.sharedWith(peerID)
			switch {
			case err != nil:
				return err
			case !p.cfg.Attestation.sees(peerID, m.namespace):
				out.ExcludedForScope++
				return nil
			case !shared:
				out.ExcludedForPrivate++
				return nil
			}
		}
		if out.EarliestUpdatedAt == nil {
			out.EarliestUpdatedAt = &m.updatedAt
		}
		out.LatestUpdatedAt = &m.updatedAt
		out.Memories = append(out.Memories, rawMemory(m))
		return nil
	})
	out.Count = len(out.Memories)
	return out, err
}

// sharedWith tells whether a peer may pull m: it is shared on purpose, its
// scope is not private, or it is from or for the peer.
func (m *memory) sharedWith(peerID string) (bool, error) {
	if m.metadataScope.set && m.metadataScope.value != "private" {
		return true, nil
	}
	if m.metadataAgent.set && m.metadataAgent.value == peerID {
		return true, nil
	}
	if m.metadata == "" {
		return false, nil
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(m.metadata), &fields); err != nil {
		return false, fmt.Errorf("stored metadata: %w", err)
	}
	return fields["federation_share"] == true || fields["target_agent_id"] == peerID, nil
}

// rawMemory is m as JSON.
func rawMemory(m *memory) json.RawMessage { return m.appendJSON(nil) }
