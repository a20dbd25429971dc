package refpeer

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Attestation says which peers may talk to a receiver, and what for. Nil: any
// peer may push for itself, and sync/since gives nothing away.
type Attestation map[string]AttestedPeer

// AttestedPeer is what one peer may do.
type AttestedPeer struct {
	// AllowedSenderAgentIDs are those it may claim beside its own id.
	AllowedSenderAgentIDs []string `json:"allowed_sender_agent_ids"`
	// AllowedNamespaces are patterns of what it may pull: * stands for one
	// segment or a part of one, ** at the end for any that follow. Empty: none.
	AllowedNamespaces []string `json:"allowed_namespaces"`
}

// ParseAttestation reads the JSON object of peer ids. Unknown fields are
// refused.
func ParseAttestation(data []byte) (Attestation, error) {
	var a Attestation
	if err := decodeStrict(data, &a); err != nil {
		return nil, fmt.Errorf("parse attestation: %w", err)
	}
	if a == nil {
		return nil, errors.New("parse attestation: want a JSON object of peer ids")
	}
	return a, a.validate()
}

func (a Attestation) validate() error {
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(a)) {
		peer := a[id]
		if !validAgentID(id) {
			errs = append(errs, fmt.Errorf("attestation: %q is no peer id", id))
		}
		for _, agent := range peer.AllowedSenderAgentIDs {
			if !validAgentID(agent) {
				errs = append(errs, fmt.Errorf("attestation of %s: %q is no agent id", id, agent))
			}
		}
		for _, pattern := range peer.AllowedNamespaces {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				errs = append(errs, fmt.Errorf("attestation of %s: %q is no namespace pattern", id, pattern))
			}
		}
	}
	return errors.Join(errs...)
}

// lets tells whether a peer may talk to this receiver at all.
func (a Attestation) lets(peerID string) bool {
	_, listed := a[peerID]
	return a == nil || listed
}

// speaksFor tells whether a peer may claim to be agent.
func (a Attestation) speaksFor(peerID, agent string) bool {
	return slices.Contains(a[peerID].AllowedSenderAgentIDs, agent)
}

// sees tells whether a peer may pull from a namespace.
func (a Attestation) sees(peerID, namespace string) bool {
	return slices.ContainsFunc(a[peerID].AllowedNamespaces, func(pattern string) bool { return matches(pattern, namespace) })
}

func matches(pattern, namespace string) bool {
	wanted, given := strings.Split(pattern, "/"), strings.Split(namespace, "/")
	for i, segment := range wanted {
		if segment == "**" && i == len(wanted)-1 {
			return i < len(given)
		}
		if i >= len(given) {
			return false
		}
		if ok, err := path.Match(segment, given[i]); err != nil || !ok {
			return false
		}
	}
	return len(wanted) == len(given)
}
