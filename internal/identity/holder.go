//go:build unix

package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"
)

// Holder holds the credential that a sender shows, and the chain above it. Both are files (the reference's
// AI_MEMORY_FED_CRED_PATH and AI_MEMORY_FED_CRED_CHAIN_PATH), each of which is the whole header value, blanks around it apart.
// They are looked at for each push and read again when they changed, so a rotated credential is used at the very next push. Put
// a new one into place by renaming ([WriteFile] does): what is written over in place may be read half-way.
//
// Make one with [NewHolder]. It is safe for concurrent use and starts no goroutine.
type Holder struct {
	leaf, chain source
	senderID    string
	reported    atomic.Pointer[string] // the warning that was given last; nil for none
}

// NewHolder returns a holder of the two files. An empty name stands for no such file, and that is no fault. The files are not
// read before the first [Holder.Headers].
func NewHolder(credFile, chainFile string) *Holder {
	return &Holder{leaf: source{path: credFile}, chain: source{path: chainFile}}
}

// Expect makes the holder keep back a credential of another agent id: peers that verify it would refuse the push, although they may have
// enrolled the sender's own key. An empty id expects nothing. Call it before the first [Holder.Headers].
func (h *Holder) Expect(senderID string) { h.senderID = senderID }

// Headers returns the values of x-memory-cred and x-memory-cred-chain of a push that signer signs, "" for a header that is to be left out. A chain is
// returned with a credential only, and no credential of another key than signer; nil takes any.
//
// A file that is missing, that group or others may write to, or that holds no credential leaves its header out; peers fall back
// to the key that they have enrolled. A credential outside of its window, or one that does not come from the chain, is sent all
// the same, because the peer decides. Both are warnings: warn is not nil once when such a thing begins or changes, and nil while
// it lasts. It costs a look at each file.
func (h *Holder) Headers(signer ed25519.PublicKey) (cred, chain string, warn error) {
	cred, chain, warn = h.headers(signer, time.Now())
	return cred, chain, h.once(warn)
}

func (h *Holder) headers(signer ed25519.PublicKey, now time.Time) (cred, chain string, warn error) {
	if h.leaf.path == "" {
		if h.chain.path != "" {
			return "", "", errors.New("a chain is set and no credential: the chain is not sent")
		}
		return "", "", nil
	}
	leaf := h.leaf.read(readLeaf)
	if err := leaf.err; err != nil {
		return "", "", fmt.Errorf("credential %s is left out: %w", h.leaf.path, err)
	}
	if err := h.unexpected(signer, leaf.leaf.claims); err != nil {
		return "", "", fmt.Errorf("credential %s is left out: %w", h.leaf.path, err)
	}
	warn = h.sentAsItIs(h.leaf.path, leaf.leaf.CheckWindow(now))
	if h.chain.path == "" {
		return leaf.header, "", warn
	}
	above := h.chain.read(readChain)
	if err := above.err; err != nil {
		return leaf.header, "", errors.Join(warn, fmt.Errorf("credential chain %s is left out: %w", h.chain.path, err))
	}
	for _, intermediate := range above.chain {
		warn = errors.Join(warn, h.sentAsItIs(h.chain.path, intermediate.CheckWindow(now)))
	}
	return leaf.header, above.header, errors.Join(warn, h.sentAsItIs(h.chain.path, above.chain.CheckLinks(leaf.leaf)))
}

// unexpected compares a credential with the sender and the key of a push.
func (h *Holder) unexpected(signer ed25519.PublicKey, claims Claims) error {
	switch {
	case h.senderID != "" && claims.SubjectAgentID != h.senderID:
		return fmt.Errorf("it is for %q and the sender is %q", claims.SubjectAgentID, h.senderID)
	case signer != nil && !signer.Equal(claims.SubjectKey):
		return errors.New("it is for another key than the one that signs the pushes")
	default:
		return nil
	}
}

func (h *Holder) sentAsItIs(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s is sent, and peers will refuse it: %w", path, err)
}

// once returns warn if it says something else than the last one.
func (h *Holder) once(warn error) error {
	last := h.reported.Load()
	if warn == nil {
		if last != nil {
			h.reported.CompareAndSwap(last, nil)
		}
		return nil
	}
	text := warn.Error()
	if last != nil && *last == text {
		return nil
	}
	if !h.reported.CompareAndSwap(last, &text) {
		return nil // another push reports at this moment; what it leaves is compared with at the next
	}
	return warn
}

// source is a file with a header value, and what was read of it last.
type source struct {
	path string
	held atomic.Pointer[reading]
}

// reading is what a file held, or why it is of no use. It never changes.
type reading struct {
	info   fs.FileInfo
	header string
	leaf   Credential
	chain  Chain
	err    error
}

// read returns what the file holds now. Of several pushes that find it changed each reads it, and what is kept is compared again
// by the next.
func (s *source) read(parse func(header string) reading) *reading {
	info, err := os.Stat(s.path)
	if err != nil {
		s.held.Store(nil)
		return &reading{err: err}
	}
	held := s.held.Load()
	if held != nil && unchanged(held.info, info) {
		return held
	}
	next := reading{}
	text, info, err := readText(s.path)
	if err == nil {
		next = parse(text)
	} else {
		next.err = err
	}
	next.info = info
	if info == nil { // it cannot be opened: nothing to compare with
		s.held.Store(nil)
		return &next
	}
	s.held.Store(&next)
	return &next
}

func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime())
}

func readLeaf(header string) reading {
	leaf, err := Parse(header)
	return reading{header: header, leaf: leaf, err: err}
}

func readChain(header string) reading {
	chain, err := ParseChain(header)
	return reading{header: header, chain: chain, err: err}
}
