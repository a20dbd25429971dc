package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/jobs"
)

const (
	// enqueueAtOnce is how many repairs are asked for in one statement.
	enqueueAtOnce = 200

	// repairPoll is the pause between two looks whether the repairs are done.
	repairPoll = 500 * time.Millisecond
)

// The names of the matters, by which what was found is compared again.
const (
	ofMemories  = "memory"
	ofArchive   = "archive"
	ofLinks     = "link"
	ofPendings  = "pending"
	ofStandards = "standard"
)

func (r *run) matter(name string) matter {
	switch name {
	case ofArchive:
		return &archive{run: r}
	case ofLinks:
		return &links{run: r}
	case ofPendings:
		return &pendings{run: r}
	case ofStandards:
		return &standards{run: r}
	default:
		return &memories{run: r}
	}
}

// repairOf is what makes a difference go away, false if nobody wants that.
func (o Options) repairOf(d Difference) (jobs.Subject, bool) {
	s := jobs.Subject{Kind: jobs.SubjectMemory, Key: d.Key, Namespace: d.Namespace, Method: jobs.RepairRenew}
	wanted := bool(o.Repair)
	switch d.Kind {
	case KindMissing:
		s.Method = jobs.RepairStore
	case KindExtra, KindDiffers, KindNotArchived, KindArchived, KindLinkMissing, KindLinkExtra:
	case KindUnknown:
		s.Method = jobs.RepairDelete
		wanted = wanted && bool(o.DeleteUnknown)
	case KindStandard:
		s.Kind, s.Method = jobs.SubjectNamespace, jobs.RepairStore
	case KindStandardExtra:
		s.Kind = jobs.SubjectNamespace
		wanted = wanted && bool(o.DeleteUnknown)
	case KindPending:
		s.Kind, s.Method = jobs.SubjectPending, jobs.RepairStore
	}
	return s, wanted
}

// found returns what takes the differences of a matter: counts them, hands them on, and asks for their repair. A memory that the peer has elsewhere can be
// found in both namespaces; it counts once.
func (r *run) found(ctx context.Context, matter string) func(suspect, Difference) error {
	return func(seen suspect, d Difference) error {
		subject, wanted := r.options.repairOf(d)
		tag, err := r.store.conn.Exec(ctx, `
			insert into verify_found (subject, key, kind, matter, namespace, agent, repaired) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`,
			string(subject.Kind), subject.Key, string(d.Kind), matter, seen.Namespace, seen.Agent, wanted)
		switch {
		case err != nil:
			return fmt.Errorf("note what was found: %w", err)
		case tag.RowsAffected() == 0 && matter != ofLinks: // a memory has several links
			return nil
		}
		r.report.Differences[d.Kind]++
		r.options.OnDifference(d)
		if !wanted {
			return nil
		}
		r.wanted = append(r.wanted, subject)
		if len(r.wanted) < enqueueAtOnce {
			return nil
		}
		return r.flush(ctx)
	}
}

// flush asks for the repairs that are wanted.
func (r *run) flush(ctx context.Context) error {
	strongest := map[jobs.SubjectKind]map[string]jobs.Subject{}
	for _, s := range r.wanted {
		if strongest[s.Kind] == nil {
			strongest[s.Kind] = map[string]jobs.Subject{}
		}
		if old, twice := strongest[s.Kind][s.Key]; !twice || old.Method == jobs.RepairStore {
			strongest[s.Kind][s.Key] = s
		}
	}
	r.wanted = nil
	var subjects []jobs.Subject
	for _, byKey := range strongest {
		for _, s := range byKey {
			subjects = append(subjects, s)
		}
	}
	n, err := jobs.EnqueueRepairs(ctx, r.store.conn, r.report.Peer, subjects)
	r.report.Repairs += n
	return err
}

// waiting is how many of the repairs that were asked for are not done.
const waiting = `
	select count(*) from repairs r where r.peer = $1 and exists (select from verify_found f where f.subject = r.subject and f.key = r.key and f.repaired)`

// awaitRepairs waits until the repairs are done, and compares again what they were for.
func (r *run) awaitRepairs(ctx context.Context) error {
	r.report.Left = r.report.Total()
	if r.options.Await <= 0 || r.report.Repairs == 0 {
		return nil
	}
	waiter, cancel := context.WithTimeoutCause(ctx, r.options.Await, ErrRepairsWait)
	defer cancel()
	for {
		var left int64
		if err := r.store.conn.QueryRow(ctx, waiting, r.report.Peer).Scan(&left); err != nil {
			return fmt.Errorf("look for repairs that wait: %w", err)
		}
		r.progress("repairs", max(r.report.Repairs-left, 0), r.report.Repairs)
		if left == 0 {
			return r.again(ctx)
		}
		if err := sleep(waiter, repairPoll); err != nil {
			return fmt.Errorf("%w (%d are left)", err, left)
		}
	}
}

// foundRow is a row of verify_found.
type foundRow struct{ Matter, Subject, Key, Namespace, Agent string }

// again compares what was repaired. What still differs is not repaired again.
func (r *run) again(ctx context.Context) error {
	left := r.report.Total()
	for kind, n := range r.report.Differences {
		if _, repaired := r.options.repairOf(Difference{Kind: kind}); repaired {
			left -= n
		}
	}
	var done int64
	var last foundRow
	for {
		list, err := collect(ctx, r.store.conn, pgx.RowToStructByPos[foundRow], "read what was repaired", `
			select distinct on (f.matter, f.subject, f.key) f.matter, f.subject, f.key, f.namespace, f.agent
			from verify_found f
			where (f.matter, f.subject, f.key) > ($1, $2, $3) and f.repaired
			order by f.matter, f.subject, f.key
			limit $4`, last.Matter, last.Subject, last.Key, settleAtOnce)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			r.report.Left = left
			return nil
		}
		suspects := map[string][]suspect{}
		for _, f := range list {
			last = f
			suspects[f.Matter] = append(suspects[f.Matter], suspect{Key: f.Key, Namespace: f.Namespace, Agent: f.Agent})
		}
		for name, some := range suspects {
			if err := r.settle(ctx, r.matter(name), some, func(suspect, Difference) error { left++; return nil }); err != nil {
				return err
			}
		}
		done += int64(len(list))
		r.progress("again", done, r.report.Repairs)
	}
}
