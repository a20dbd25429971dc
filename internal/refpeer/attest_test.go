package refpeer_test

import (
	"net/http"
	"strings"
	"testing"

	"quorumbox/internal/refpeer"
)

func TestParseAttestation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, err string
	}{
		{`{}`, ""},
		{`{"ai:leader":{"allowed_sender_agent_ids":["ai:x"],"allowed_namespaces":["a/*","b/**"]}}`, ""},
		{`null`, "want a JSON object"},
		{`[]`, "parse attestation"},
		{`{} {}`, "more than one"},
		{`{"a b":{}}`, "no peer id"},
		{`{"a":{"allowed_senders":[]}}`, "unknown field"},
		{`{"a":{"allowed_sender_agent_ids":["a b"]}}`, "no agent id"},
		{`{"a":{"allowed_namespaces":["["]}}`, "no namespace pattern"},
		{`{"a":{"allowed_namespaces":[""]}}`, "no namespace pattern"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			_, err := refpeer.ParseAttestation([]byte(tt.text))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
		})
	}
}

// TestAttestation covers steps 4 and 8 of the receiver's checks: who may talk,
// and for whom.
func TestAttestation(t *testing.T) {
	t.Parallel()
	courier := refpeer.Attestation{"ai:courier": {AllowedSenderAgentIDs: []string{sender}}}
	for _, tt := range []struct {
		name string
		cfg  refpeer.Config
		peer string
		want int
		text string
	}{
		{"no allowlist, for itself", refpeer.Config{}, sender, 200, ""},
		{"no allowlist, for another", refpeer.Config{}, "ai:courier", 403, "sender_agent_id_mismatch"},
		{"listed, for one it may claim", refpeer.Config{Attestation: courier}, "ai:courier", 200, ""},
		{
			"listed, for one it may not",
			refpeer.Config{Attestation: refpeer.Attestation{"ai:courier": {AllowedSenderAgentIDs: []string{"ai:x"}}}},
			"ai:courier", 403, "sender_agent_id_mismatch",
		},
		{"not listed", refpeer.Config{Attestation: courier}, sender, 401, "x_peer_id_not_in_allowlist"},
		{"nobody listed", refpeer.Config{Attestation: refpeer.Attestation{}}, sender, 401, "x_peer_id_not_in_allowlist"},
		{"allowlist, no peer id", refpeer.Config{Attestation: courier}, "", 401, "x_peer_id_not_in_allowlist"},
		{
			"allowlist before the signature",
			refpeer.Config{Attestation: courier, KeysDir: keysDir(t)},
			sender,
			401, "x_peer_id_not_in_allowlist",
		},
		{
			"allowlist without signatures",
			refpeer.Config{Attestation: courier, RequireSignature: refpeer.Off},
			sender,
			401, "x_peer_id_not_in_allowlist",
		},
		{"body trusted, for another", refpeer.Config{TrustBodyAgentID: refpeer.On}, "ai:courier", 200, ""},
		{"body trusted, no peer id", refpeer.Config{TrustBodyAgentID: refpeer.On}, "", 200, ""},
		{
			"body trusted, but not listed",
			refpeer.Config{TrustBodyAgentID: refpeer.On, Attestation: courier},
			sender,
			401, "x_peer_id_not_in_allowlist",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, tt.cfg)
			r := pushRequest(t.Context(), emptyPush)
			r.Header.Set("X-Peer-Id", tt.peer)
			a := serve(peer.Handler(), r)
			if a.status != tt.want || !strings.Contains(string(a.body), tt.text) {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, tt.want, tt.text)
			}
			if a.status != http.StatusOK && peer.Counters().Tags[tt.text] != 1 {
				t.Errorf("counters: got %v, want %s once", peer.Counters().Tags, tt.text)
			}
		})
	}
}
