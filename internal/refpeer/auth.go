package refpeer

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Texts and tags of the answers 401 and 403, as the reference words them.
const (
	msgAPIKey            = "missing or invalid API key"
	tagNotAllowlisted    = "x_peer_id_not_in_allowlist"
	tagSigMissing        = "x_memory_sig_missing"
	tagSigBad            = "x_memory_sig_bad_signature"
	tagSigMalformed      = "x_memory_sig_malformed"
	tagSigAlgorithm      = "x_memory_sig_unknown_algorithm"
	tagSigNoKey          = "x_memory_sig_no_enrolled_key"
	tagNotEnrolled       = "peer_not_enrolled"
	tagNonceReplay       = "x_memory_nonce_replay"
	tagNonceMissing      = "x_memory_nonce_missing"
	tagPeerHeaderMissing = "peer_id_header_missing"
	tagSenderMismatch    = "sender_agent_id_mismatch"
)

// apiKey compares keys in constant time. Nil admits everybody.
type apiKey struct {
	sum [sha256.Size]byte
}

func newAPIKey(key string) *apiKey {
	if key == "" {
		return nil
	}
	return &apiKey{sum: sha256.Sum256([]byte(key))}
}

func (k *apiKey) admits(r *http.Request) bool {
	if k == nil {
		return true
	}
	given := r.Header.Get("X-Api-Key")
	if given == "" && r.URL.RawQuery != "" {
		given = r.URL.Query().Get("api_key")
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], k.sum[:]) == 1
}

// peerHeader returns x-peer-id; a malformed one counts as absent.
func peerHeader(r *http.Request) string {
	id := r.Header.Get("X-Peer-Id")
	if !validAgentID(id) {
		return ""
	}
	return id
}

// authenticated is what the checks of a request's origin found.
type authenticated struct {
	used       consumed // the nonce, if the request was signed
	credential string   // credentialOK, the tag of why it does not count, or empty: none came
}

// authenticate checks allowlist, signature and nonce of a request, of which
// signed are the bytes that its signature covers beside the nonce. Not empty,
// tag is that of the answer 401.
func (p *Peer) authenticate(r *http.Request, peerID string, signed []byte) (out authenticated, tag string) {
	if !p.cfg.Attestation.lets(peerID) {
		return out, tagNotAllowlisted
	}
	if !p.cfg.RequireSignature.isOn(true) {
		return out, ""
	}
	signature := r.Header.Get("X-Memory-Sig")
	key, credential, err := p.keyOf(r, peerID)
	out.credential = credential
	switch {
	case err != nil:
		return out, tagSigNoKey // a broken key file never means "not enrolled"
	case signature != "" && key == nil:
		return out, tagSigNoKey
	case signature == "" && key != nil:
		return out, tagSigMissing
	case signature == "" && p.cfg.RequireEnrollment.isOn(false):
		return out, tagNotEnrolled
	case signature == "":
		return out, ""
	}
	out.used, tag = p.checkSignature(r, peerID, key, signature, signed)
	return out, tag
}

// keyOf returns the key of a sender: the subject's of its credential, if one
// came and counts, else the enrolled one; nil if there is none. credential is
// that of [authenticated].
func (p *Peer) keyOf(r *http.Request, peerID string) (key ed25519.PublicKey, credential string, err error) {
	if header := r.Header.Get("X-Memory-Cred"); header != "" {
		key, err := p.trust.key(header, r.Header.Get("X-Memory-Cred-Chain"), peerID, time.Now())
		if err == nil {
			return key, credentialOK, nil
		}
		credential = err.Error()
		p.counters.tag(credential)
		p.cfg.Logger.WarnContext(r.Context(), "credential does not count",
			slog.String("peer", p.cfg.ID), slog.String("sender", peerID), slog.String("tag", credential))
	}
	key, err = p.keys.find(peerID)
	return key, credential, err
}

// checkSignature checks signature and nonce, and uses the nonce up.
func (p *Peer) checkSignature(
	r *http.Request, peerID string, key ed25519.PublicKey, signature string, signed []byte,
) (consumed, string) {
	nonce := r.Header.Get("X-Memory-Nonce")
	if tag := verify(key, signature, signed, nonce); tag != "" {
		return consumed{}, tag
	}
	if nonce == "" {
		if p.cfg.RequireNonce.isOn(true) {
			return consumed{}, tagNonceMissing
		}
		return consumed{}, ""
	}
	used, fresh := p.nonces.consume(peerID, nonce)
	if !fresh {
		return consumed{}, tagNonceReplay
	}
	return used, ""
}

// verify checks the header x-memory-sig and returns the tag of what is wrong,
// "" if nothing is. Signed are the body's bytes, a zero byte and the nonce's
// text; without a nonce the body alone.
func verify(key ed25519.PublicKey, header string, body []byte, nonce string) string {
	value, _, _ := strings.Cut(header, ";")
	encoded, known := strings.CutPrefix(strings.TrimSpace(value), "ed25519=")
	if !known {
		return tagSigAlgorithm
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(signature) != ed25519.SignatureSize {
		return tagSigMalformed
	}
	signed := body
	if nonce != "" {
		signed = make([]byte, 0, len(body)+1+len(nonce))
		signed = append(append(append(signed, body...), 0), nonce...)
	}
	if !ed25519.Verify(key, signed, signature) {
		return tagSigBad
	}
	return ""
}

// keyring reads enrolled keys and remembers them until their file changes.
// Safe for concurrent use.
type keyring struct {
	root *os.Root // nil: nobody is enrolled

	mu    sync.Mutex
	known map[string]enrolled
}

type enrolled struct {
	key     ed25519.PublicKey
	changed time.Time
}

func openKeyring(dir string) (*keyring, error) {
	k := &keyring{known: map[string]enrolled{}}
	if dir == "" {
		return k, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of keys (make it, or leave it out): %w", err)
	}
	k.root = root
	return k, nil
}

func (k *keyring) close() error {
	if k.root == nil {
		return nil
	}
	return k.root.Close()
}

// find returns the key of id, nil if there is none. An error means that there
// is a file but no usable key in it.
func (k *keyring) find(id string) (ed25519.PublicKey, error) {
	if k.root == nil || id == "" {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	name := id + ".pub"
	info, err := k.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		delete(k.known, id)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", id, err)
	}
	if known, ok := k.known[id]; ok && known.changed.Equal(info.ModTime()) {
		return known.key, nil
	}
	f, err := k.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", id, err)
	}
	defer func() { _ = f.Close() }()
	key, err := io.ReadAll(io.LimitReader(f, ed25519.PublicKeySize+1))
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", id, err)
	}
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("key of %s: want %d raw bytes", id, ed25519.PublicKeySize)
	}
	k.known[id] = enrolled{key: key, changed: info.ModTime()}
	return key, nil
}
