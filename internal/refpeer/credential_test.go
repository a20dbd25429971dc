package refpeer_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"quorumbox/internal/refpeer"
)

func keyFrom(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(key ed25519.PrivateKey) []byte { return key.Public().(ed25519.PublicKey) }

func encodeCBOR(t *testing.T, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func header(b []byte) string { return "v1=" + base64.StdEncoding.EncodeToString(b) }

// envelope is a credential that issuer signs now, with changes to its claims;
// a nil value removes one.
func envelope(t *testing.T, issuer ed25519.PrivateKey, changes fields) []byte {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"cred_version": 1, "issuer_id": "root", "not_after": now + 3600, "not_before": now - 10,
		"subject_agent_id": sender, "subject_pubkey": public(nodeKey()), "trust_domain": "fleet.example",
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	signed := encodeCBOR(t, claims)
	return encodeCBOR(t, map[string]any{"claims": signed, "sig": ed25519.Sign(issuer, signed)})
}

// bundle is a trust bundle with the root and a file that is no key.
func bundle(t *testing.T, root ed25519.PrivateKey) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"root.pub": public(root), "broken.pub": []byte("short")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pushWith pushes one memory, signed with key unless that is nil.
func pushWith(t *testing.T, peer *refpeer.Peer, key ed25519.PrivateKey, cred, chain string) answer {
	t.Helper()
	const nonce = "1"
	body := pushBody(t, []string{memoryJSON(t, nil)})
	r := pushRequest(t.Context(), body)
	if key != nil {
		signature := ed25519.Sign(key, []byte(body+"\x00"+nonce))
		r.Header.Set("X-Memory-Sig", "ed25519="+base64.StdEncoding.EncodeToString(signature))
		r.Header.Set("X-Memory-Nonce", nonce)
	}
	for name, value := range map[string]string{"X-Memory-Cred": cred, "X-Memory-Cred-Chain": chain} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return serve(peer.Handler(), r)
}

// TestCredentialTags wants every failure named in counters and log, and the
// enrolled key to count instead.
func TestCredentialTags(t *testing.T) {
	t.Parallel()
	root, middle, enrolled := keyFrom(1), keyFrom(2), keyFrom(3)
	now := time.Now().Unix()
	good := envelope(t, root, nil)
	via := fields{"issuer_id": "region/ca"}
	leaf := header(envelope(t, middle, via))
	intermediate := func(changes fields) []byte {
		all := fields{"subject_agent_id": "region/ca", "subject_pubkey": public(middle)}
		maps.Copy(all, changes)
		return envelope(t, root, all)
	}
	chain := func(envelopes ...[]byte) string { return header(encodeCBOR(t, append([][]byte{}, envelopes...))) }
	var wrapped map[string]any
	if err := cbor.Unmarshal(good, &wrapped); err != nil {
		t.Fatal(err)
	}
	rewrapped := func(changes fields) string {
		all := maps.Clone(wrapped)
		maps.Copy(all, changes)
		maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
		return header(encodeCBOR(t, all))
	}
	for _, tt := range []struct {
		name, cred, chain string
		tag               string
	}{
		{"good", header(good), "", "ok"},
		{"good chain", leaf, chain(intermediate(nil)), "ok"},
		{"no version", base64.StdEncoding.EncodeToString(good), "", "credential_malformed"},
		{"another version of the header", strings.Replace(header(good), "v1", "v2", 1), "", "credential_unsupported_version"},
		{"version without a number", strings.Replace(header(good), "v1", "v", 1), "", "credential_malformed"},
		{"not base64", "v1=!", "", "credential_malformed"},
		{"empty", "v1=", "", "credential_malformed"},
		{"not CBOR", header([]byte("hello")), "", "credential_malformed"},
		{"text after it", header(append(bytes.Clone(good), 0)), "", "credential_malformed"},
		{"a third key", rewrapped(fields{"alg": "ed25519"}), "", "credential_malformed"},
		{"no signature", rewrapped(fields{"sig": nil}), "", "credential_malformed"},
		{"another key than the signature", rewrapped(fields{"sig": nil, "signature": wrapped["sig"]}), "", "credential_malformed"},
		{"signature too short", rewrapped(fields{"sig": []byte{1}}), "", "credential_malformed"},
		{"signature as a list", rewrapped(fields{"sig": numbers(wrapped["sig"].([]byte))}), "", "credential_malformed"},
		{"claims not wrapped", rewrapped(fields{"claims": map[string]any{}}), "", "credential_malformed"},
		{"claims without a subject", header(envelope(t, root, fields{"subject_agent_id": nil})), "", "credential_malformed"},
		{"claims without a version", header(envelope(t, root, fields{"cred_version": nil})), "", "credential_malformed"},
		{"claims with more", header(envelope(t, root, fields{"role": "admin"})), "", "credential_malformed"},
		{"time as text", header(envelope(t, root, fields{"not_after": "never"})), "", "credential_malformed"},
		{"another version", header(envelope(t, root, fields{"cred_version": 2})), "", "credential_unsupported_version"},
		{"key too short", header(envelope(t, root, fields{"subject_pubkey": []byte{1}})), "", "credential_bad_subject_key"},
		{"signed by another", header(envelope(t, middle, nil)), "", "credential_bad_signature"},
		{"not yet", header(envelope(t, root, fields{"not_before": now + 1000})), "", "credential_not_yet_valid"},
		{"no more", header(envelope(t, root, fields{"not_after": now - 5})), "", "credential_expired"},
		{"unknown issuer", header(envelope(t, root, fields{"issuer_id": "nobody"})), "", "credential_unknown_issuer"},
		{"issuer without a usable key", header(envelope(t, root, fields{"issuer_id": "broken"})), "", "credential_unknown_issuer"},
		{"issuer outside of the folder", header(envelope(t, root, fields{"issuer_id": "../root"})), "", "credential_unknown_issuer"},
		{"another domain", header(envelope(t, root, fields{"trust_domain": "x"})), "", "credential_wrong_trust_domain"},
		{"another subject", header(envelope(t, root, fields{"subject_agent_id": "ai:x"})), "", "credential_subject_mismatch"},
		{"chain malformed", leaf, "v1=AAAA", "credential_malformed"},
		{"chain of another version", leaf, "v9=AAAA", "credential_unsupported_version"},
		{"chain of one envelope, not a list", leaf, header(intermediate(nil)), "credential_malformed"},
		{"chain of something else", leaf, chain([]byte("x")), "credential_malformed"},
		{"chain empty", leaf, chain(), "chain_empty"},
		{"chain too deep", leaf, chain(intermediate(nil), intermediate(nil)), "chain_too_deep"},
		{"chain of another name", leaf, chain(intermediate(fields{"subject_agent_id": "region/other"})), "chain_name_mismatch"},
		{
			"chain of another domain", header(envelope(t, middle, fields{"issuer_id": "region/ca", "trust_domain": "x"})),
			chain(intermediate(nil)), "chain_domain_mismatch",
		},
		{"chain from another domain", leaf, chain(intermediate(fields{"trust_domain": "x"})), "credential_wrong_trust_domain"},
		{"intermediate of an unknown issuer", leaf, chain(intermediate(fields{"issuer_id": "x"})), "credential_unknown_issuer"},
		{"intermediate no more valid", leaf, chain(intermediate(fields{"not_after": now - 5})), "credential_expired"},
		{"leaf not signed by the intermediate", header(envelope(t, root, via)), chain(intermediate(nil)), "credential_bad_signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			keys := t.TempDir()
			writeKey(t, keys, public(enrolled))
			peer := openPeer(t, refpeer.Config{KeysDir: keys, TrustBundleDir: bundle(t, root), TrustDomain: "fleet.example"})
			key := enrolled
			if tt.tag == "ok" {
				key = nodeKey()
			}
			if a := pushWith(t, peer, key, tt.cred, tt.chain); a.status != http.StatusOK {
				t.Fatalf("got %d %s, want 200", a.status, a.body)
			}
			if got := entries(t, peer)[0].Credential; got != tt.tag {
				t.Errorf("log: got the credential %q, want %q", got, tt.tag)
			}
			counted := peer.Counters().Tags
			if n := counted[tt.tag]; tt.tag != "ok" && n != 1 || tt.tag == "ok" && len(counted) != 0 {
				t.Errorf("counters: got %v, want %s once", counted, tt.tag)
			}
		})
	}
}

// TestCredentialMatrix wants the subject's key to take the place of the
// enrolled one in every row of the signature matrix.
func TestCredentialMatrix(t *testing.T) {
	t.Parallel()
	root, enrolled := keyFrom(1), keyFrom(3)
	cred := header(envelope(t, root, nil))
	expired := header(envelope(t, root, fields{"not_after": 5}))
	keys := t.TempDir()
	writeKey(t, keys, public(enrolled))
	for _, tt := range []struct {
		name string
		keys string
		key  ed25519.PrivateKey
		cred string
		want int
		tag  string
	}{
		{"stranger with a credential", "", nodeKey(), cred, 200, ""},
		{"stranger with a credential, unsigned", "", nil, cred, 401, "x_memory_sig_missing"},
		{"stranger with an expired one", "", nodeKey(), expired, 401, "x_memory_sig_no_enrolled_key"},
		{"stranger with an expired one, unsigned", "", nil, expired, 200, ""},
		{"enrolled, signed with the subject's key", keys, nodeKey(), cred, 200, ""},
		{"enrolled, signed with the enrolled key", keys, enrolled, cred, 401, "x_memory_sig_bad_signature"},
		{"enrolled, expired, signed with the enrolled key", keys, enrolled, expired, 200, ""},
		{"enrolled, expired, signed with the subject's key", keys, nodeKey(), expired, 401, "x_memory_sig_bad_signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{KeysDir: tt.keys, TrustBundleDir: bundle(t, root)})
			a := pushWith(t, peer, tt.key, tt.cred, "")
			if a.status != tt.want || !strings.Contains(string(a.body), tt.tag) {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, tt.want, tt.tag)
			}
			if tt.tag != "" && peer.Counters().Tags[tt.tag] != 1 {
				t.Errorf("counters: got %v, want %s once", peer.Counters().Tags, tt.tag)
			}
			if tt.want == 200 && tt.key != nil {
				if a := pushWith(t, peer, tt.key, tt.cred, ""); a.status != 401 || !strings.Contains(string(a.body), "nonce_replay") {
					t.Errorf("replay: got %d %s, want 401 x_memory_nonce_replay", a.status, a.body)
				}
			}
		})
	}
	t.Run("no bundle", func(t *testing.T) {
		t.Parallel()
		peer := openPeer(t, refpeer.Config{})
		if a := pushWith(t, peer, nodeKey(), cred, ""); a.status != 401 || peer.Counters().Tags["credential_unknown_issuer"] != 1 {
			t.Errorf("got %d %s, want 401 and an unknown issuer counted", a.status, a.body)
		}
	})
}
