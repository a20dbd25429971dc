package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

const (
	// changesLeft is how many entries, of all lanes, are few enough for the log to go on from them.
	changesLeft = 1000

	// changesAtOnce bounds the entries of a part.
	changesAtOnce = 500

	// changesLaps is how often as much as there was in the beginning is worked off before it is seen that writers are quicker.
	changesLaps = 3
)

// laneChanges is how far the changes of a lane have been worked off, and up to where they must be.
type laneChanges struct {
	At   int64 `json:"at"`
	Goal int64 `json:"goal"`
	Log  bool  `json:"log,omitempty"` // the cursor stays behind At: an entry is about something that only the log has
}

// changeState is the key of the phase changes.
type changeState struct {
	Lanes map[int16]laneChanges `json:"lanes"`
	First int64                 `json:"first"` // entries that there were in the beginning
}

// beginChanges notes what has to be worked off, once everything is dispatched that the phases before may have read.
func (s *snapshot) beginChanges(ctx context.Context) (*part, error) {
	if err := s.awaitDispatch(ctx); err != nil {
		return nil, err
	}
	state := changeState{Lanes: map[int16]laneChanges{}}
	lags, err := s.store.cursors(ctx, s.peer)
	if err != nil {
		return nil, err
	}
	for at, l := range lags {
		if l.Behind <= 0 {
			continue
		}
		head, err := s.store.newest(ctx, at.Lane)
		if err != nil {
			return nil, err
		}
		state.Lanes[at.Lane] = laneChanges{At: l.Cursor, Goal: head}
		state.First += l.Behind
	}
	return &part{phase: phaseChanges, after: state.key()}, nil
}

func (c changeState) key() string {
	text, _ := json.Marshal(c) // numbers
	return string(text)
}

// newest is the number of a lane's newest batch.
func (s *store) newest(ctx context.Context, lane int16) (number int64, err error) {
	err = s.pool.QueryRow(ctx, `select coalesce(max(number), 0) from batches where lane = $1`, lane).Scan(&number)
	if err != nil {
		return 0, fmt.Errorf("find the newest batch of lane %d: %w", lane, err)
	}
	return number, nil
}

// loadChanges is for what was written since the snapshot began, by the log from the parked cursors on: what a run of a lane's entries
// touches is deleted at the peer and written as the store has it now, all of the run together; then the cursor is moved past them. So
// whatever the parts of different instants have made of it is put right: two memories that had a title one after the other are merged, one
// that was archived meanwhile is in no part. All that was there when the phase began has to be worked off; it ends when little is left,
// which the log brings, or when there is always more.
func (s *snapshot) loadChanges(ctx context.Context) (*part, error) {
	if s.row.After == "" {
		return s.beginChanges(ctx)
	}
	var state changeState
	if err := json.Unmarshal([]byte(s.row.After), &state); err != nil {
		return nil, fmt.Errorf("read how far the changes are: %w", err)
	}
	for lane, c := range state.Lanes {
		if c.At < c.Goal {
			return s.loadRun(ctx, lane, state)
		}
	}
	lags, err := s.store.cursors(ctx, s.peer)
	if err != nil {
		return nil, err
	}
	left, most := int64(0), lag{}
	for at, l := range lags {
		if state.Lanes[at.Lane].Log {
			continue
		}
		left += max(l.Behind, 0)
		if l.Behind > most.Behind {
			most = l
		}
	}
	if left <= changesLeft || s.row.PhasePushed > changesLaps*state.First {
		return &part{phase: phaseEnd}, nil
	}
	head, err := s.store.newest(ctx, most.Lane)
	if err != nil {
		return nil, err
	}
	state.Lanes[most.Lane] = laneChanges{At: most.Cursor, Goal: head}
	return s.loadRun(ctx, most.Lane, state)
}

// loadRun is for the next batches of a lane. If an entry is about something that is in no table of ours, which an application keeps in
// tables of its own, only the log can bring it: then the lane's cursor stays behind the run, and the rest of the run is worked off all the
// same.
func (s *snapshot) loadRun(ctx context.Context, lane int16, state changeState) (p *part, err error) {
	at := state.Lanes[lane]
	batches, err := s.store.loadBatches(ctx, laneRange{Lane: lane, Cursor: at.At, Before: at.Goal + 1, AtMost: changesAtOnce})
	if err != nil {
		return nil, err
	}
	entries, bytes := 0, int64(0)
	for i, b := range batches {
		if i > 0 && (entries+len(b.IDs) > changesAtOnce || bytes+b.Bytes > snapshotBytes) {
			batches = batches[:i]
			break
		}
		entries += len(b.IDs)
		bytes += b.Bytes
	}
	if err := s.store.loadEntries(ctx, batches); err != nil {
		return nil, err
	}
	p = &part{phase: phaseChanges, count: int64(entries)}
	run := touchedBy(batches)
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.store.pool, options, func(tx pgx.Tx) error {
		foreign, err := run.foreign(ctx, tx)
		if err != nil {
			return err
		}
		at.Log = at.Log || len(foreign) > 0
		p.state, err = loadCurrent(ctx, tx, run.without(foreign), nil)
		if err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load changes of lane %d: %w", lane, err)
	}
	at.At = at.Goal
	if len(batches) > 0 {
		at.At = batches[len(batches)-1].Number
	}
	state.Lanes[lane] = at
	p.after = state.key()
	if !at.Log {
		p.lane = &advance{peerLane: peerLane{s.peer, lane}, Cursor: at.At}
	}
	return p, nil
}

// touched is what entries are about.
type touched struct {
	subjects []subject
	memories []string // also those that they only need
	pendings []string

	standards map[string]string // of namespaces
}

func touchedBy(batches []batch) *touched {
	t := &touched{standards: map[string]string{}}
	seen := map[string]int{}
	add := func(kind subjectKind, key string, how method) {
		i, known := seen[string(kind)+key]
		if !known {
			i = len(t.subjects)
			seen[string(kind)+key] = i
			t.subjects = append(t.subjects, subject{Kind: kind, Key: key, Method: how})
		}
		if how == renew {
			t.subjects[i].Method = renew
		}
	}
	memory := func(id string, how method) {
		add(aMemory, id, how)
		t.memories = append(t.memories, id)
	}
	for _, b := range batches {
		for _, e := range b.Entries {
			var p struct {
				Source   string `json:"source_id"`
				Target   string `json:"target_id"`
				Standard string `json:"standard_id"`
				Sources  []struct{ ID string }
			}
			_ = json.Unmarshal(e.Payload, &p)
			switch e.Kind {
			case outbox.KindStore, outbox.KindDelete, outbox.KindArchive, outbox.KindRestore:
				memory(e.Key, renew)
			case outbox.KindConsolidate:
				memory(e.Key, renew)
				for _, source := range p.Sources {
					memory(source.ID, renew)
				}
			case outbox.KindLink: // it goes with its source
				memory(p.Source, storeAgain)
				t.memories = append(t.memories, p.Target)
			case outbox.KindPending, outbox.KindDecision:
				add(aPending, e.Key, storeAgain)
				t.pendings = append(t.pendings, e.Key)
			case outbox.KindNamespaceSet:
				add(aNamespace, e.Key, storeAgain)
				t.memories = append(t.memories, p.Standard)
				t.standards[e.Key] = p.Standard
			case outbox.KindNamespaceClear:
				add(aNamespace, e.Key, storeAgain)
			}
		}
	}
	return t
}

// foreign is what the store's own tables do not have, and did not have: ids of memories and of pending actions, and namespaces whose
// standard is such a memory.
func (t *touched) foreign(ctx context.Context, tx pgx.Tx) (ids map[string]bool, err error) {
	rows, err := tx.Query(ctx, `
		select 'memory' || i.id
		from unnest($1::text[]) i (id)
		where not exists (select from memories m where m.id = i.id)
		  and not exists (select from archived_memories a where a.id = i.id)
		  and not exists (select from tombstones t where t.id = i.id)
		union all
		select 'pending' || i.id
		from unnest($2::text[]) i (id)
		where not exists (select from pending_actions p where p.id = i.id)`, t.memories, t.pendings)
	if err != nil {
		return nil, fmt.Errorf("look for what applications keep themselves: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for what applications keep themselves: %w", err)
	}
	ids = make(map[string]bool, len(list))
	for _, id := range list {
		ids[id] = true
	}
	for ns, standard := range t.standards {
		if ids[string(aMemory)+standard] {
			ids[string(aNamespace)+ns] = true
		}
	}
	return ids, nil
}

// without is the subjects but for foreign ones.
func (t *touched) without(foreign map[string]bool) []subject {
	return slices.DeleteFunc(slices.Clone(t.subjects), func(s subject) bool { return foreign[string(s.Kind)+s.Key] })
}
