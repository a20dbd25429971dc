package refpeer_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/refpeer"
)

const emptyPush = `{"dry_run":false,"memories":[],"sender_agent_id":"ai:leader"}`

// nodeKey is the key of the protocol's test vectors: the seed is 00..1f.
func nodeKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

// sign is the header of the protocol, made independently of the sender's code.
func sign(body, nonce string) string {
	signed := body
	if nonce != "" {
		signed += "\x00" + nonce
	}
	return "ed25519=" + base64.StdEncoding.EncodeToString(ed25519.Sign(nodeKey(), []byte(signed)))
}

// keysDir is a folder in which sender is enrolled.
func keysDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	writeKey(tb, dir, nodeKey().Public().(ed25519.PublicKey))
	return dir
}

func writeKey(tb testing.TB, dir string, key []byte) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(dir, sender+".pub"), key, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// TestVectors checks signatures made elsewhere (protocol test vectors).
func TestVectors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pub, err := hex.DecodeString("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
	if err != nil {
		t.Fatal(err)
	}
	writeKey(t, dir, pub)
	const (
		nonce      = "00000000-0000-4000-8000-000000000001"
		withNonce  = "ed25519=zGXq0cYSfkC5CYOhflTiEuBPvt5s7yzNjBCjgIZzVvCyX3bJUIEUg62199YwwU/nrwzVRh/VCBNF/r/ZPrUBBg=="
		legacyForm = "ed25519=WGTl3xsGHXiMBPK9ZnJIh3WN8ET2vGnaaKUBgwP942P+0RmsQOngY034z+/WB6k0eR10ODk/Nr+h/YATZpZ4BQ=="
	)
	strict := openPeer(t, refpeer.Config{KeysDir: dir})
	r := pushRequest(t.Context(), emptyPush)
	r.Header.Set("X-Memory-Sig", withNonce)
	r.Header.Set("X-Memory-Nonce", nonce)
	if a := serve(strict.Handler(), r); a.status != http.StatusOK {
		t.Errorf("signature with nonce: got %d %s, want 200", a.status, a.body)
	}
	lenient := openPeer(t, refpeer.Config{KeysDir: dir, RequireNonce: refpeer.Off})
	r = pushRequest(t.Context(), emptyPush)
	r.Header.Set("X-Memory-Sig", legacyForm)
	if a := serve(lenient.Handler(), r); a.status != http.StatusOK {
		t.Errorf("legacy signature: got %d %s, want 200", a.status, a.body)
	}
}

// TestAuth covers the order and the answers of the checks before a push is
// applied (protocol, receiver verification order).
func TestAuth(t *testing.T) {
	t.Parallel()
	enrolled := keysDir(t)
	broken := t.TempDir()
	writeKey(t, broken, []byte("short"))
	const nonce = "n-1"
	signed := map[string]string{"X-Memory-Sig": sign(emptyPush, nonce), "X-Memory-Nonce": nonce}
	for _, tt := range []struct {
		name    string
		cfg     refpeer.Config
		target  string
		headers map[string]string // "" removes
		body    string
		status  int
		text    string
	}{
		{name: "unsigned, nobody enrolled", status: 200},
		{name: "signed and enrolled", cfg: refpeer.Config{KeysDir: enrolled}, headers: signed, status: 200},
		{
			name: "parameter after the signature", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": " " + sign(emptyPush, nonce) + " ; v=1", "X-Memory-Nonce": nonce}, status: 200,
		},
		{name: "api key missing", cfg: refpeer.Config{APIKey: "k"}, status: 401, text: "missing or invalid API key"},
		{
			name: "api key wrong", cfg: refpeer.Config{APIKey: "k"}, headers: map[string]string{"X-Api-Key": "longer"},
			status: 401, text: "missing or invalid API key",
		},
		{name: "api key right", cfg: refpeer.Config{APIKey: "k"}, headers: map[string]string{"X-Api-Key": "k"}, status: 200},
		{name: "api key in the query", cfg: refpeer.Config{APIKey: "k"}, target: "?api_key=k", status: 200},
		{
			name: "api key comes before the signature", cfg: refpeer.Config{APIKey: "k", KeysDir: enrolled},
			status: 401, text: "missing or invalid API key",
		},
		{name: "signature missing", cfg: refpeer.Config{KeysDir: enrolled}, status: 401, text: "x_memory_sig_missing"},
		{name: "signature of a stranger", headers: signed, status: 401, text: "x_memory_sig_no_enrolled_key"},
		{
			name: "key file broken", cfg: refpeer.Config{KeysDir: broken}, status: 401, text: "x_memory_sig_no_enrolled_key",
		},
		{
			name: "signature of another body", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": sign(emptyPush+" ", nonce), "X-Memory-Nonce": nonce},
			status:  401, text: "x_memory_sig_bad_signature",
		},
		{
			name: "signature with another nonce", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": sign(emptyPush, "n-2"), "X-Memory-Nonce": nonce},
			status:  401, text: "x_memory_sig_bad_signature",
		},
		{
			name: "signature not base64", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": "ed25519=!", "X-Memory-Nonce": nonce},
			status:  401, text: "x_memory_sig_malformed",
		},
		{
			name: "signature too short", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": "ed25519=AAAA", "X-Memory-Nonce": nonce},
			status:  401, text: "x_memory_sig_malformed",
		},
		{
			name: "signature of another algorithm", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": "hmac=AAAA", "X-Memory-Nonce": nonce},
			status:  401, text: "x_memory_sig_unknown_algorithm",
		},
		{
			name: "nonce missing", cfg: refpeer.Config{KeysDir: enrolled},
			headers: map[string]string{"X-Memory-Sig": sign(emptyPush, "")}, status: 401, text: "x_memory_nonce_missing",
		},
		{
			name: "nonce missing but not needed", cfg: refpeer.Config{KeysDir: enrolled, RequireNonce: refpeer.Off},
			headers: map[string]string{"X-Memory-Sig": sign(emptyPush, "")}, status: 200,
		},
		{
			name: "not enrolled", cfg: refpeer.Config{KeysDir: t.TempDir(), RequireEnrollment: refpeer.On},
			status: 401, text: "peer_not_enrolled",
		},
		{
			name: "signature not needed", cfg: refpeer.Config{KeysDir: enrolled, RequireSignature: refpeer.Off},
			headers: map[string]string{"X-Memory-Sig": "nonsense"}, status: 200,
		},
		{name: "body comes before the peer id", headers: map[string]string{"X-Peer-Id": ""}, body: "{", status: 400},
		{
			name: "signature comes before the body", cfg: refpeer.Config{KeysDir: enrolled}, body: "{",
			status: 401, text: "x_memory_sig_missing",
		},
		{name: "peer id missing", headers: map[string]string{"X-Peer-Id": ""}, status: 403, text: "peer_id_header_missing"},
		{
			name: "peer id malformed", headers: map[string]string{"X-Peer-Id": "a b"}, status: 403, text: "peer_id_header_missing",
		},
		{name: "peer id of another", headers: map[string]string{"X-Peer-Id": "ai:b"}, status: 403, text: "sender_agent_id_mismatch"},
		{
			name: "reserved sender", headers: map[string]string{"X-Peer-Id": "daemon"},
			body: strings.ReplaceAll(emptyPush, sender, "daemon"), status: 400,
		},
		{name: "agent id malformed", headers: map[string]string{"X-Agent-Id": "a b"}, status: 400},
		{name: "agent id echoed", headers: map[string]string{"X-Agent-Id": "ai:me"}, status: 200, text: `"receiver_agent_id":"ai:me"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, tt.cfg)
			body := tt.body
			if body == "" {
				body = emptyPush
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/sync/push"+tt.target, strings.NewReader(body))
			r.Header.Set("X-Peer-Id", sender)
			for name, value := range tt.headers {
				if value == "" {
					r.Header.Del(name)
				} else {
					r.Header.Set(name, value)
				}
			}
			a := serve(peer.Handler(), r)
			if a.status != tt.status || !strings.Contains(string(a.body), tt.text) {
				t.Errorf("got %d %s, want %d with %q", a.status, a.body, tt.status, tt.text)
			}
		})
	}
}

func TestSenderMismatchNamesBoth(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	r := pushRequest(t.Context(), emptyPush)
	r.Header.Set("X-Peer-Id", "ai:other")
	got := serve(peer.Handler(), r).json(t)
	if got["claimed"] != sender || got["peer_header"] != "ai:other" || got["note"] == "" {
		t.Errorf("got %v, want claimed, peer_header and note", got)
	}
}

// TestNonceReplay wants a nonce to be good for one push only: whatever became
// of that push, and after the peer was closed and opened again.
func TestNonceReplay(t *testing.T) {
	t.Parallel()
	keys, data := keysDir(t), t.TempDir()
	tooMany := `{"memories":[],"sender_agent_id":"ai:leader","deletions":["x"` + strings.Repeat(`,"x"`, 1000) + `]}`
	bodies := map[string]struct {
		body   string
		status int
	}{
		"applied":   {pushBody(t, []string{memoryJSON(t, nil)}), 200},
		"empty":     {emptyPush, 200},
		"dry-run":   {`{"dry_run":true,"memories":[],"sender_agent_id":"ai:leader"}`, 200},
		"malformed": {"{", 400},
		"over-cap":  {tooMany, 400},
		"mismatch":  {strings.ReplaceAll(emptyPush, sender, "ai:b"), 403},
	}
	push := func(peer *refpeer.Peer, body, nonce string) answer {
		r := pushRequest(t.Context(), body)
		r.Header.Set("X-Memory-Sig", sign(body, nonce))
		r.Header.Set("X-Memory-Nonce", nonce)
		return serve(peer.Handler(), r)
	}
	for _, life := range []string{"first", "after reopening", "after reopening again"} {
		peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: data, KeysDir: keys})
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range bodies {
			if life == "first" {
				if a := push(peer, tt.body, name); a.status != tt.status {
					t.Errorf("%s: got %d %s, want %d", name, a.status, a.body, tt.status)
				}
			}
			a := push(peer, tt.body, name)
			if a.status != http.StatusUnauthorized || !strings.Contains(string(a.body), "x_memory_nonce_replay") {
				t.Errorf("%s, %s: got %d %s, want 401 x_memory_nonce_replay", life, name, a.status, a.body)
			}
		}
		if err := peer.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeysChange wants enrolling, changing and removing a key to count at once.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	peer := openPeer(t, refpeer.Config{KeysDir: dir})
	attempt := 0
	signedPush := func() int {
		attempt++
		nonce := fmt.Sprintf("n-%d", attempt)
		r := pushRequest(t.Context(), emptyPush)
		r.Header.Set("X-Memory-Sig", sign(emptyPush, nonce))
		r.Header.Set("X-Memory-Nonce", nonce)
		return serve(peer.Handler(), r).status
	}
	check := func(step string, want int) {
		t.Helper()
		if got := signedPush(); got != want {
			t.Errorf("%s: got %d, want %d", step, got, want)
		}
	}
	check("not enrolled", 401)
	writeKey(t, dir, nodeKey().Public().(ed25519.PublicKey))
	check("enrolled", 200)
	check("still enrolled", 200)
	writeKey(t, dir, make([]byte, ed25519.PublicKeySize))
	name := filepath.Join(dir, sender+".pub")
	if err := os.Chtimes(name, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("another key", 401)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	check("removed", 401)
}
