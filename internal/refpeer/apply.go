package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// push is one authenticated request, ready to be applied.
type push struct {
	msg            *message
	idempotencyKey string
	peerID         string
	nonce          string
	credential     string // what became of the credential; empty: none came
	traceparent    string
	consumed       consumed
	steps          []step

	refuse refuseRule
	// budget is how many memories may still be applied before the quota of a
	// fault is used up; nil: there is no such fault.
	budget *budget
}

// refuseRule says which items a fault leaves alone. The zero rule refuses
// nothing.
type refuseRule struct {
	as    refusal
	limit int      // how many
	only  string   // items of this list; empty: of any
	ids   []string // items with one of these keys; none: any
}

// refusal is how a deliberately refused item is reported.
type refusal int

const (
	refusedSkipped refusal = iota + 1
	refusedUnsupported
)

// outcome is what a push did.
type outcome struct {
	done         [lists]int // applied items by list, those that changed nothing (store: lost) included
	noop         int
	skipped      int
	unsupported  int
	quotaRefused int // links
	refused      int // by a fault, counted in skipped or unsupported too
	results      map[Result]int
	quota        *quotaRefusal // not nil: the push ended at this memory
}

// add counts one item in the answer.
func (o *outcome) add(l list, result Result) {
	switch result {
	case ResultSkipped:
		o.skipped++
	case ResultNoop:
		o.noop++
	case ResultUnsupported:
		o.unsupported++
	case ResultQuotaRefused:
		o.quotaRefused++
	default:
		o.done[l]++
	}
}

// step applies one list of a push.
type step func(ctx context.Context, s *store, p *push, out *outcome) error

// steps is the order in which the lists of a push are applied. A quota refusal
// of a memory ends the push.
func steps(cfg Config) []step {
	memories := memoriesStep(limits{memories: cfg.QuotaPerDay, bytes: cfg.QuotaBytesPerDay})
	embeddings := embeddingsStep(cfg.EmbeddingDim)
	links := linksList(cfg.QuotaLinksPerDay)
	if cfg.Backend == BackendPostgres {
		return []step{
			memories, embeddings, deletionsList().run, archivesList().unsupported(), restoresList().unsupported(), links.run,
			pendingsList().unsupported(), decisionsList().unsupported(), namespaceMetaList().unsupported(),
			namespaceClearsList().unsupported(),
		}
	}
	return []step{
		memories, embeddings, deletionsList().run, archivesList().run, restoresList().run, links.run, pendingsList().run,
		decisionsList().run, namespaceMetaList().run, namespaceClearsList().run,
	}
}

// listStep applies one list item by item: it leaves alone what a fault
// refuses, and applies, counts and logs the others.
type listStep[T any] struct {
	list  list
	items func(*message) []T
	// describe says what is known of an item before it is applied.
	describe func(*T) logItem
	// apply sets the item's result. An error fails the whole push.
	apply func(context.Context, *store, *push, *T, *logItem) error
}

func (l listStep[T]) run(ctx context.Context, s *store, p *push, out *outcome) error {
	all := l.items(p.msg)
	for i := range all {
		item := l.describe(&all[i])
		if p.refused(s, out, l.list, item) {
			continue
		}
		if err := l.apply(ctx, s, p, &all[i], &item); err != nil {
			return err
		}
		out.add(l.list, item.result)
		s.note(out, item)
	}
	return nil
}

// unsupported is the step of a backend that does not know the list: it only
// counts.
func (l listStep[T]) unsupported() step {
	l.apply = func(_ context.Context, _ *store, _ *push, _ *T, item *logItem) error {
		item.result = ResultUnsupported
		return nil
	}
	return l.run
}

// applyLists applies a push inside the running transaction and logs it.
func (s *store) applyLists(ctx context.Context, p *push) (outcome, error) {
	out := outcome{results: make(map[Result]int, 2)}
	s.items = s.items[:0]
	for _, apply := range p.steps {
		if err := apply(ctx, s, p, &out); err != nil {
			return outcome{}, err
		}
		if out.quota != nil {
			break
		}
	}
	return out, s.writeLog(ctx, p)
}

// note adds one item to the log row of the running push and counts it.
func (s *store) note(out *outcome, item logItem) {
	s.items = appendLogItem(s.items, item)
	s.lastSeq++
	out.results[item.result]++
}

// writeLog writes the log row of the running push, if it has items.
func (s *store) writeLog(ctx context.Context, p *push) error {
	if len(s.items) == 0 {
		return nil
	}
	s.lastPush++
	_, err := s.stmts.insertLog.ExecContext(ctx,
		s.lastSeq, s.lastPush, time.Now().UnixNano(), p.idempotencyKey, p.peerID, p.nonce, p.credential, p.traceparent, s.items)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// refused reports an item that a fault leaves alone.
func (p *push) refused(s *store, out *outcome, l list, item logItem) bool {
	if out.refused == p.refuse.limit || !p.refuse.meets(l, item) {
		return false
	}
	out.refused++
	if p.refuse.as == refusedUnsupported {
		out.unsupported++
	} else {
		out.skipped++
	}
	item.skip("fault")
	s.note(out, item)
	return true
}

func (r refuseRule) meets(l list, item logItem) bool {
	if r.only != "" && r.only != l.String() {
		return false
	}
	return len(r.ids) == 0 || slices.Contains(r.ids, item.key()) || item.op == OpLink && slices.Contains(r.ids, item.target)
}

// liveIn returns the namespace of a live memory, false if it is not live.
func (s *store) liveIn(ctx context.Context, id string) (string, bool, error) {
	var namespace string
	err := s.stmts.namespaceOf.QueryRowContext(ctx, id).Scan(&namespace)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for memory: %w", err)
	}
	return namespace, true, nil
}

// found tells whether a query for the number 1 has a row.
func found(row *sql.Row) (bool, error) {
	var one int
	err := row.Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
