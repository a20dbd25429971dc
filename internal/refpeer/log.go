package refpeer

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Op is what an item of a push asked for.
type Op string

// The operations, one for each list of the protocol.
const (
	OpStore          Op = "store"
	OpEmbedding      Op = "embedding"
	OpDelete         Op = "delete"
	OpArchive        Op = "archive"
	OpRestore        Op = "restore"
	OpLink           Op = "link"
	OpPending        Op = "pending"
	OpDecision       Op = "decision"
	OpNamespaceSet   Op = "namespace_set"
	OpNamespaceClear Op = "namespace_clear"
)

// Result is what became of an item.
type Result string

// Results of a store: inserted; updated (same id, the arriving row won); lost
// (same id, the stored row won); merged (another id has the title). Of an
// embedding: embedded; reembed (a daemon would make its own). Of the others:
// deleted, archived, restored, linked, parked (a pending), decided, set,
// cleared. Of any: skipped (refused; the reason says why), noop (nothing to
// do), unsupported (not by this backend), quota_refused (a link).
const (
	ResultInserted     Result = "inserted"
	ResultUpdated      Result = "updated"
	ResultLost         Result = "lost"
	ResultMerged       Result = "merged"
	ResultEmbedded     Result = "embedded"
	ResultReembed      Result = "reembed"
	ResultDeleted      Result = "deleted"
	ResultArchived     Result = "archived"
	ResultRestored     Result = "restored"
	ResultLinked       Result = "linked"
	ResultParked       Result = "parked"
	ResultDecided      Result = "decided"
	ResultSet          Result = "set"
	ResultCleared      Result = "cleared"
	ResultSkipped      Result = "skipped"
	ResultNoop         Result = "noop"
	ResultUnsupported  Result = "unsupported"
	ResultQuotaRefused Result = "quota_refused"
)

// LogEntry is one line of the peer's apply log: one item of one push that was
// committed. Entries are numbered without gaps, in the order of applying.
type LogEntry struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"` // UTC
	Push int64     `json:"push"`
	Op   Op        `json:"op"`
	// ID is the memory, the parked action, a link's source, or the standard of
	// a namespace; empty for namespace_clear.
	ID string `json:"id"`
	// Namespace is that of the item, where it has one.
	Namespace string `json:"namespace"`
	// UpdatedAt is as received; of a restore the receiver's new one; empty
	// where an item has none.
	UpdatedAt string `json:"updated_at"`
	Result    Result `json:"result"`
	// Target is the other end of a link, or the memory that an approved
	// decision stored or deleted.
	Target   string `json:"target,omitempty"`
	Relation string `json:"relation,omitempty"` // of a link
	// Reason says why an item was skipped, and what a decision did.
	Reason         string `json:"reason,omitempty"`
	IdempotencyKey string `json:"idempotency_key"`
	PeerID         string `json:"peer_id"` // x-peer-id
	Nonce          string `json:"nonce"`
	// Credential is "ok", or the tag of why the credential did not count;
	// empty if none came.
	Credential string `json:"credential,omitempty"`
	// Traceparent is the header of that name, at most its first 128 bytes. It has
	// no meaning for the peer.
	Traceparent string `json:"traceparent,omitempty"`
}

// logItem is the part of an entry that differs between the items of a push.
type logItem struct {
	op                       Op
	result                   Result
	id, namespace, updatedAt string
	target, relation, reason string
}

// skip marks an item as refused.
func (item *logItem) skip(reason string) {
	item.result, item.reason = ResultSkipped, reason
}

// settle sets the result by whether a statement changed a row.
func (item *logItem) settle(changed sql.Result, done, otherwise Result) error {
	n, err := changed.RowsAffected()
	if err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	item.result = otherwise
	if n > 0 {
		item.result = done
	}
	return nil
}

// key is what a sender calls the item: its id, or the namespace where that is
// what is set or cleared.
func (item *logItem) key() string {
	switch item.op {
	case OpNamespaceSet, OpNamespaceClear:
		return item.namespace
	default:
		return item.id
	}
}

// Fields of a packed item. Items of stores and deletions, of which there are
// many, have the short form unless there is more to say; in a long form, the
// operation starts with longMark.
const (
	shortFields = 5
	longFields  = 8
	longMark    = "+"
)

// appendLogItem appends item as texts, each behind its length.
func appendLogItem(b []byte, item logItem) []byte {
	if item.target == "" && item.relation == "" && item.reason == "" {
		return appendTexts(b, string(item.op), string(item.result), item.id, item.namespace, item.updatedAt)
	}
	return appendTexts(b, longMark+string(item.op), string(item.result), item.id, item.namespace, item.updatedAt,
		item.target, item.relation, item.reason)
}

func appendTexts(b []byte, fields ...string) []byte {
	for _, field := range fields {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	return b
}

// errLogDamaged means that a log row was changed by somebody else.
var errLogDamaged = errors.New("the apply log is damaged")

func readLogItems(b []byte) ([]logItem, error) {
	var items []logItem
	for len(b) > 0 {
		var fields [longFields]string
		n := shortFields
		for i := 0; i < n; i++ {
			var ok bool
			if fields[i], b, ok = cutText(b); !ok {
				return nil, errLogDamaged
			}
			if i == 0 && strings.HasPrefix(fields[0], longMark) {
				n = longFields
			}
		}
		items = append(items, logItem{
			op: Op(strings.TrimPrefix(fields[0], longMark)), result: Result(fields[1]), id: fields[2], namespace: fields[3],
			updatedAt: fields[4], target: fields[5], relation: fields[6], reason: fields[7],
		})
	}
	return items, nil
}

// cutText takes one text of [appendTexts] off b.
func cutText(b []byte) (field string, rest []byte, ok bool) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > maxBody {
		return "", nil, false
	}
	end := width + int(n)
	if end > len(b) {
		return "", nil, false
	}
	return string(b[width:end]), b[end:], true
}

// Log writes the entries after number after to w, one JSON object a line, as
// they are at the time of the call.
func (p *Peer) Log(ctx context.Context, w io.Writer, after int64) error {
	rows, err := p.store.readers.QueryContext(ctx, `
		select last_seq, push, at, idempotency_key, peer_id, nonce, credential, traceparent, items
		from log
		where last_seq > ?
		order by last_seq`, after)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer func() { _ = rows.Close() }()
	enc := json.NewEncoder(w)
	for rows.Next() {
		var e LogEntry
		var lastSeq, at int64
		var packed []byte
		if err := rows.Scan(&lastSeq, &e.Push, &at, &e.IdempotencyKey, &e.PeerID, &e.Nonce, &e.Credential, &e.Traceparent, &packed); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		items, err := readLogItems(packed)
		if err != nil {
			return err
		}
		e.At = time.Unix(0, at).UTC()
		for i, item := range items {
			e.Seq = lastSeq - int64(len(items)-1-i)
			if e.Seq <= after {
				continue
			}
			e.Op, e.Result, e.ID, e.Namespace, e.UpdatedAt = item.op, item.result, item.id, item.namespace, item.updatedAt
			e.Target, e.Relation, e.Reason = item.target, item.relation, item.reason
			if err := enc.Encode(e); err != nil {
				return fmt.Errorf("write the log: %w", err)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}
