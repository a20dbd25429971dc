package refpeer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
)

// The window of remembered nonces (reference 0.7.x): first in, first out for
// each peer; the peer that was quiet for longest is forgotten first. There is
// no time in it.
const (
	noncesPerPeer = 10_000
	noncePeers    = 1024
)

type fingerprint [sha256.Size]byte

// nonceFingerprint is SHA-256 over length and text of both, lengths as 32-bit
// big endian numbers.
func nonceFingerprint(peerID, nonce string) fingerprint {
	b := make([]byte, 0, 8+len(peerID)+len(nonce))
	for _, part := range [...]string{peerID, nonce} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // G115: header values are below 16 KiB
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}

// nonceWindow is the window in memory. It decides; the table nonces only
// brings it back after a restart. Safe for concurrent use.
type nonceWindow struct {
	mu      sync.Mutex
	lastSeq int64
	peers   map[string]*peerNonces
	limit   int // nonces per peer
	maxPeer int
}

type peerNonces struct {
	seen  map[fingerprint]struct{}
	queue []nonceRow // oldest first
}

// nonceRow is one row of the table nonces.
type nonceRow struct {
	seq  int64
	mark fingerprint
}

// consumed is what a fresh nonce changes in the table nonces. It is written
// with the push, or alone if the push fails. The zero value changes nothing.
type consumed struct {
	peerID string
	row    nonceRow
	drop   []int64
}

func newNonceWindow() *nonceWindow {
	return &nonceWindow{peers: map[string]*peerNonces{}, limit: noncesPerPeer, maxPeer: noncePeers}
}

// consume remembers a nonce; false means that it was used before.
func (w *nonceWindow) consume(peerID, nonce string) (consumed, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	mark := nonceFingerprint(peerID, nonce)
	if peer := w.peers[peerID]; peer != nil {
		if _, replay := peer.seen[mark]; replay {
			return consumed{}, false
		}
	}
	return w.add(peerID, nonceRow{seq: w.lastSeq + 1, mark: mark}), true
}

func (w *nonceWindow) add(peerID string, row nonceRow) consumed {
	out := consumed{peerID: peerID, row: row}
	w.lastSeq = max(w.lastSeq, row.seq)
	peer := w.peers[peerID]
	if peer == nil {
		out.drop = w.makeRoom()
		peer = &peerNonces{seen: map[fingerprint]struct{}{}}
		w.peers[peerID] = peer
	}
	peer.seen[row.mark] = struct{}{}
	peer.queue = append(peer.queue, row)
	for len(peer.queue) > w.limit {
		out.drop = append(out.drop, peer.queue[0].seq)
		delete(peer.seen, peer.queue[0].mark)
		peer.queue = peer.queue[1:]
	}
	return out
}

// makeRoom forgets the quietest peer if there are too many, and returns the
// rows that go with it.
func (w *nonceWindow) makeRoom() []int64 {
	if len(w.peers) < w.maxPeer {
		return nil
	}
	var quietest string
	var oldest int64
	for id, peer := range w.peers {
		if last := peer.queue[len(peer.queue)-1].seq; quietest == "" || last < oldest {
			quietest, oldest = id, last
		}
	}
	var drop []int64
	for _, row := range w.peers[quietest].queue {
		drop = append(drop, row.seq)
	}
	delete(w.peers, quietest)
	return drop
}

// load brings back the window from the file.
func (w *nonceWindow) load(ctx context.Context, s *store) error {
	rows, err := s.readers.QueryContext(ctx, `select seq, peer_id, fingerprint from nonces order by seq`)
	if err != nil {
		return fmt.Errorf("read nonces: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var peerID string
		var row nonceRow
		var mark []byte
		if err := rows.Scan(&row.seq, &peerID, &mark); err != nil {
			return fmt.Errorf("read nonces: %w", err)
		}
		copy(row.mark[:], mark)
		w.add(peerID, row)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read nonces: %w", err)
	}
	return nil
}

// saveNonce writes a consumed nonce in the running transaction.
func (s *store) saveNonce(ctx context.Context, c consumed) error {
	if c.row.seq == 0 {
		return nil
	}
	if _, err := s.stmts.insertNonce.ExecContext(ctx, c.row.seq, c.peerID, c.row.mark[:]); err != nil {
		return fmt.Errorf("remember nonce: %w", err)
	}
	for _, seq := range c.drop {
		if _, err := s.stmts.deleteNonce.ExecContext(ctx, seq); err != nil {
			return fmt.Errorf("forget nonce: %w", err)
		}
	}
	return nil
}
