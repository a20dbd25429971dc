package refpeer

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Op is what an item of a push asked for.
type Op string

// The operations of the lists that this receiver applies.
const (
	OpStore  Op = "store"
	OpDelete Op = "delete"
)

// Result is what became of an item.
type Result string

// Results of a store: inserted; updated (same id, the arriving row won); lost
// (same id, the stored row won); merged (another id has the title); skipped
// (refused). Results of a delete: deleted, noop (there was no such row),
// skipped (no valid id).
const (
	ResultInserted Result = "inserted"
	ResultUpdated  Result = "updated"
	ResultLost     Result = "lost"
	ResultMerged   Result = "merged"
	ResultSkipped  Result = "skipped"
	ResultDeleted  Result = "deleted"
	ResultNoop     Result = "noop"
)

// LogEntry is one line of the peer's apply log: one item of one push that was
// committed. Entries are numbered without gaps, in the order of applying.
type LogEntry struct {
	Seq            int64     `json:"seq"`
	At             time.Time `json:"at"` // UTC
	Push           int64     `json:"push"`
	Op             Op        `json:"op"`
	ID             string    `json:"id"`
	Namespace      string    `json:"namespace"`  // empty for a delete
	UpdatedAt      string    `json:"updated_at"` // as received; empty for a delete
	Result         Result    `json:"result"`
	IdempotencyKey string    `json:"idempotency_key"`
	PeerID         string    `json:"peer_id"` // x-peer-id
	Nonce          string    `json:"nonce"`
}

// logItem is the part of an entry that differs between the items of a push.
type logItem struct {
	op                       Op
	result                   Result
	id, namespace, updatedAt string
}

// appendLogItem appends item as five texts, each behind its length.
func appendLogItem(b []byte, item logItem) []byte {
	for _, field := range [...]string{string(item.op), string(item.result), item.id, item.namespace, item.updatedAt} {
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
		var fields [5]string
		for i := range fields {
			n, width := binary.Uvarint(b)
			if width <= 0 || n > maxBody {
				return nil, errLogDamaged
			}
			end := width + int(n)
			if end > len(b) {
				return nil, errLogDamaged
			}
			fields[i], b = string(b[width:end]), b[end:]
		}
		items = append(items, logItem{
			op: Op(fields[0]), result: Result(fields[1]), id: fields[2], namespace: fields[3], updatedAt: fields[4],
		})
	}
	return items, nil
}

// Log writes the entries after number after to w, one JSON object a line, as
// they are at the time of the call.
func (p *Peer) Log(ctx context.Context, w io.Writer, after int64) error {
	rows, err := p.store.readers.QueryContext(ctx, `
		select last_seq, push, at, idempotency_key, peer_id, nonce, items
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
		if err := rows.Scan(&lastSeq, &e.Push, &at, &e.IdempotencyKey, &e.PeerID, &e.Nonce, &packed); err != nil {
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
