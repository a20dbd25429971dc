package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// invariant is something that must hold at any time, as a function that tells where it does not.
type invariant struct {
	id   string
	find func(context.Context) []string
}

// always are the invariants that hold at any time, also under load and between kills. See the package comment for what the ids mean.
func (f *fleet) always() []invariant {
	list := []invariant{
		{"C2", f.falseVerdicts}, {"C3", f.forgotten}, {"C7", f.overgrown}, {"dispatch", f.dispatchedTwice},
	}
	if !f.zombies { // a push that arrives late is out of order: what counts is what is there in the end
		list = append(list, invariant{"C5", f.backInTime}, invariant{"I3", f.outOfOrder})
	}
	return list
}

// inTheEnd are those that hold when nothing is left to do, beside C1, C6 and what lagging lanes and jobs have to do with each other (C3), which are waited for.
func (f *fleet) inTheEnd() []invariant {
	return append(f.always(), invariant{"C4", f.resurrected}, invariant{"C9", f.leaks})
}

// wrongNow is where an invariant does not hold that must hold at any time.
func (f *fleet) wrongNow(ctx context.Context) []string {
	var found []string
	for _, i := range f.always() {
		found = append(found, i.find(ctx)...)
	}
	return found
}

// forgotten is where a peer misses the last change of a memory that is dispatched and decided, and nothing says so (C3): neither does its lane lag
// from before that batch, nor is the entry refused. Memories that other entries than stores and deletes change are left out.
func (f *fleet) forgotten(ctx context.Context) []string {
	type due struct {
		peer, op, id, updatedAt string
		lane                    int16
		number                  int64
	}
	// The tables first and the logs then: what was in step at the time of the tables must be in the logs.
	rows, err := f.pool.Query(ctx, `
		with last as (
			select distinct on (o.key) o.key, o.id, o.kind, case when o.kind = 'store' then o.payload ->> 'updated_at' else '' end as updated_at,
			       b.lane, b.number, b.verdict
			from outbox o
			join batches b on b.lane = o.lane and b.first_entry <= o.id and o.id <= b.last_entry and o.id = any (b.entries)
			where o.kind in ('store', 'delete')
			order by o.key, o.id desc
		), others as (
			select key from outbox where kind in ('archive', 'restore')
			union
			select key from outbox where kind = 'consolidate'
			union
			select s ->> 'id' from outbox o cross join lateral json_array_elements(o.payload -> 'sources') s where o.kind = 'consolidate'
			union
			select coalesce(memory_id, payload ->> 'id') from pending_actions where coalesce(memory_id, payload ->> 'id') is not null
		)
		select p.id, l.kind, l.key, l.updated_at, l.lane, l.number
		from last l
		cross join peers p
		where l.verdict <> 'pending' and p.id = any ($1)
		  and not exists (select from others where others.key = l.key)
		  and not exists (select from undispatched u join outbox o on o.id = u.entry where o.key = l.key)
		  and not exists (select from lagging g where g.peer = p.id and g.lane = l.lane and g.cursor < l.number)
		  and not exists (select from refusals r where r.peer = p.id and r.entry = l.id)
		  and not exists (select from repairs r where r.peer = p.id and r.key = l.key)`, f.peerIDs())
	if err != nil {
		return []string{err.Error()}
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d due, err error) {
		return d, row.Scan(&d.peer, &d.op, &d.id, &d.updatedAt, &d.lane, &d.number)
	})
	if err != nil {
		return []string{err.Error()}
	}
	logs, found := f.appliedChanges(ctx)
	for _, d := range all {
		if !logs[d.peer][change{d.op, d.id, d.updatedAt}] {
			found = append(found, fmt.Sprintf("C3: %s does not have %s of %s (batch %d of lane %d), and nothing will bring it", d.peer, d.op, d.id, d.number, d.lane))
		}
	}
	return found
}

func (f *fleet) peerIDs() []string {
	var ids []string
	for _, p := range f.peers {
		ids = append(ids, p.id)
	}
	return ids
}

// appliedChanges are the changes that each peer was sent and did not skip.
func (f *fleet) appliedChanges(ctx context.Context) (logs map[string]map[change]bool, problems []string) {
	logs = map[string]map[change]bool{}
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			problems = append(problems, err.Error())
		}
		logs[p.id] = map[change]bool{}
		for _, a := range log {
			if a.Result != "skipped" {
				logs[p.id][change{a.Op, a.ID, a.UpdatedAt}] = true
			}
		}
	}
	return logs, problems
}

// resurrected is memories that the writer has deleted and a peer has (C4), but for those that are in doubt.
func (f *fleet) resurrected(ctx context.Context) []string {
	deleted, err := f.strings(ctx, `
		select distinct id
		from (
			select key::text as id from outbox where kind in ('delete', 'archive')
			union
			select s ->> 'id' from outbox o cross join lateral json_array_elements(o.payload -> 'sources') s where o.kind = 'consolidate'
		) ended
		where not exists (select from memories m where m.id = ended.id)`)
	if err != nil {
		return []string{err.Error()}
	}
	doubtful, err := f.strings(ctx, `select peer || ' ' || key from repairs`)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, p := range f.peers {
		alive, err := p.memories(ctx)
		if err != nil {
			found = append(found, err.Error())
		}
		for _, id := range deleted {
			if _, ok := alive[id]; ok && !slices.Contains(doubtful, p.id+" "+id) {
				found = append(found, fmt.Sprintf("C4: %s has %s, which is deleted", p.id, id))
			}
		}
	}
	return found
}

// backInTime is where a memory at a peer got an older version than it had, or the same once more, without having been deleted in between (C5).
func (f *fleet) backInTime(ctx context.Context) []string {
	var found []string
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			found = append(found, err.Error())
		}
		for _, text := range backInTime(log) {
			found = append(found, fmt.Sprintf("C5: %s, %s", p.id, text))
		}
	}
	return found
}

func backInTime(log []applied) []string {
	var found []string
	has := map[string]string{} // by memory: its updated_at
	for _, a := range log {
		before, alive := has[a.ID]
		switch a.Result {
		case "inserted", "restored":
			if a.Op == "store" && alive {
				found = append(found, fmt.Sprintf("push %d: %s is inserted again", a.Push, a.ID))
			}
			has[a.ID] = a.UpdatedAt
		case "updated":
			if alive && a.UpdatedAt <= before {
				found = append(found, fmt.Sprintf("push %d: %s goes from %s to %s", a.Push, a.ID, before, a.UpdatedAt))
			}
			has[a.ID] = a.UpdatedAt
		case "deleted", "archived":
			delete(has, a.ID)
		case "decided":
			delete(has, a.Target) // was stored or deleted
		}
	}
	return found
}

// The most that a worker and its tables may grow to, with the settings of [fleet.writeConfig] (C7).
const (
	mostSockets    = 12 + 4*16 // connections to the database, and to the peers with those that are being replaced
	mostMemory     = 150 << 10 // KiB
	mostArgs       = 200       // bytes of a job's arguments
	mostErrorBytes = 16 << 10  // of all errors that a job has kept
)

// overgrown is what is larger than it may ever be (C7): a worker's sockets and memory, jobs' arguments and errors, lagging lanes and live jobs.
func (f *fleet) overgrown(ctx context.Context) []string {
	found, err := f.strings(ctx, `
		select 'C7: job ' || id || ' has arguments of ' || octet_length(args::text) || ' bytes' from river_job where octet_length(args::text) > $1
		union all
		select 'C7: job ' || id || ' has errors of ' || octet_length(errors::text) || ' bytes' from river_job where octet_length(errors::text) > $2
		union all
		select 'C7: ' || count(*) || ' live jobs of ' || kind from river_job where finalized_at is null group by kind having count(*) > $3`,
		mostArgs, mostErrorBytes, 3*32*len(f.peers))
	if err != nil {
		return []string{err.Error()}
	}
	if runtime.GOOS != "linux" {
		return found
	}
	for _, w := range f.workers {
		if w.hasEnded() {
			continue
		}
		if n := w.sockets(); n > mostSockets {
			found = append(found, fmt.Sprintf("C7: %s has %d sockets, want %d at most", w.name, n, mostSockets))
		}
		if n := w.memory(); n > mostMemory {
			found = append(found, fmt.Sprintf("C7: %s has %d KiB of memory, want %d at most", w.name, n, mostMemory))
		}
	}
	return found
}

// sockets is how many the process has open; on Linux, 0 elsewhere or if it has ended.
func (p *process) sockets() (n int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// memory is the resident memory of the process in KiB; on Linux, 0 elsewhere or if it has ended.
func (p *process) memory() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(status))
	i := slices.Index(fields, "VmRSS:")
	if i < 0 || i+1 >= len(fields) {
		return 0
	}
	n, _ := strconv.Atoi(fields[i+1]) // 0 if it is none
	return n
}
