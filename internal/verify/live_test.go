package verify_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/internal/verify"
)

// between is a peer to which things happen while it is read.
type between struct {
	verify.Reader
	memories func(page peer.Page, list []peer.StoredMemory) ([]peer.StoredMemory, error)
	memory   func(id string)
	pendings func(page peer.Page) ([]peer.StoredPending, error)
	archive  func(page peer.Page) ([]peer.ArchivedMemory, error)
	gone     bool         // what it lists is not there when it is asked for by id
	asked    atomic.Int64 // memories by id
}

func (b *between) Memories(ctx context.Context, page peer.Page) ([]peer.StoredMemory, error) {
	list, err := b.Reader.Memories(ctx, page)
	if b.memories == nil || err != nil {
		return list, err
	}
	return b.memories(page, list)
}

func (b *between) Memory(ctx context.Context, id, agent string) (peer.StoredMemory, []peer.StoredLink, bool, error) {
	b.asked.Add(1)
	if b.gone && strings.HasPrefix(id, "x-") {
		return peer.StoredMemory{}, nil, false, nil
	}
	m, links, found, err := b.Reader.Memory(ctx, id, agent)
	if b.memory != nil {
		b.memory(id)
	}
	return m, links, found, err
}

func (b *between) Pendings(ctx context.Context, page peer.Page) ([]peer.StoredPending, error) {
	if b.pendings == nil {
		return b.Reader.Pendings(ctx, page)
	}
	return b.pendings(page)
}

func (b *between) Archive(ctx context.Context, page peer.Page) ([]peer.ArchivedMemory, error) {
	if b.archive == nil {
		return b.Reader.Archive(ctx, page)
	}
	return b.archive(page)
}

// What may be under way is not called a difference.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, sql string }{
		{"waits for its dispatch", `insert into undispatched (lane, entry, bytes) select lane, id, 1 from outbox where key = 'm-3'`},
		{"is being pushed", `
			insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until)
			select lane, 1, array[id], id, id, 1, 1, 0, now() from outbox where key = 'm-3'`},
		{"is not acknowledged by the peer", `
			with lagged as (insert into lagging (peer, lane, cursor, pushed_to) select 'a', lane, 0, 0 from outbox where key = 'm-3')
			insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed, acked)
			select lane, 1, array[id], id, id, 1, 1, 0, now(), 'met', 1, '{}' from outbox where key = 'm-3'`},
		{"may still arrive", `
			insert into doubts (peer, lane, from_number, to_number, until) select 'a', lane, 0, 1, now() + interval '1 hour' from outbox where key = 'm-3'`},
		{"is to be repaired", `insert into repairs (peer, subject, key, lane, method, reason) values ('a', 'memory', 'm-3', 0, 'renew', 'doubt')`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := furnished(t)
			w.push("deletions", `"m-3"`)
			w.exec(tt.sql)
			report, differences := w.compare(quick(), w.client)
			if len(differences) > 0 || report.Unsettled != 1 || report.Equal() {
				t.Errorf("got %v, %+v, want one that is unsettled", differences, report)
			}
		})
	}
}

// Another lane, or what the peer has acknowledged already, keeps nothing unsettled.
func TestSettledThoughBusy(t *testing.T) {
	t.Parallel()
	w := furnished(t)
	w.push("deletions", `"m-3"`)
	w.exec(`
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed, acked)
		select lane, 1, array[id], id, id, 1, 1, 0, now(), 'met', 1, '{}' from outbox where key = 'm-3';
		insert into lagging (peer, lane, cursor, pushed_to) select 'a', lane, 1, 1 from outbox where key = 'm-3';
		insert into undispatched (lane, entry, bytes) select (lane + 1) % 32, id, 1 from outbox where key = 'm-3'`)
	report, differences := w.compare(quick(), w.client)
	if report.Unsettled != 0 || len(differences) != 1 || differences[0].Key != "m-3" {
		t.Errorf("got %v, %+v, want m-3 alone", differences, report)
	}
}

// A difference that goes away while it is looked at was none, and neither is one that was only in the list.
func TestChangesMeanwhile(t *testing.T) {
	t.Parallel()
	t.Run("the store changes and the peer gets it", func(t *testing.T) {
		t.Parallel()
		w := furnished(t)
		w.exec(`update memories set content = 'new', updated_at = '2030-01-01', version = 2 where id = 'm-3'`)
		changed := false
		b := &between{Reader: w.client, memory: func(string) {
			if !changed {
				changed = true
				w.exec(`update memories set content = 'newer', updated_at = '2031-01-01', version = 3 where id = 'm-3'`)
				w.push("memories", w.strings(`select memory_json(m)::text from memories m where id = 'm-3'`)...)
			}
		}}
		report, differences := w.compare(quick(), b)
		if len(differences) > 0 || !report.Equal() || b.asked.Load() < 2 {
			t.Errorf("got %v, %+v after %d looks, want equal", differences, report, b.asked.Load())
		}
	})
	t.Run("the store goes on changing", func(t *testing.T) {
		t.Parallel()
		w := furnished(t)
		w.push("deletions", `"m-3"`)
		b := &between{Reader: w.client, memory: func(id string) {
			w.exec(`update memories set version = version + 1 where id = $1`, id)
		}}
		if report, differences := w.compare(quick(), b); len(differences) > 0 || report.Unsettled != 1 {
			t.Errorf("got %v, %+v, want one that is unsettled", differences, report)
		}
	})
	t.Run("the pages move", func(t *testing.T) {
		t.Parallel()
		w := furnished(t)
		b := &between{Reader: w.client, memories: func(_ peer.Page, list []peer.StoredMemory) ([]peer.StoredMemory, error) {
			return slices.DeleteFunc(list, func(m peer.StoredMemory) bool { return m.ID == "m-1" || m.ID == "private-1" }), nil
		}}
		report, differences := w.compare(quick(), b)
		if len(differences) > 0 || !report.Equal() {
			t.Errorf("got %v, %+v, want equal", differences, report)
		}
	})
}

// The list of an author shows its private memories, so that they need no request each.
func TestListsAsAuthors(t *testing.T) {
	t.Parallel()
	w := furnished(t)
	b := &between{Reader: w.client}
	if report, _ := w.compare(quick(), b); !report.Equal() {
		t.Errorf("got %+v, want equal", report)
	}
	if n := b.asked.Load(); n != 1 { // secluded: a list as its author costs as much
		t.Errorf("got %d memories asked by id, want 1", n)
	}
	options := quick()
	options.Agents = []string{"ai:y"}
	b.asked.Store(0)
	if w.compare(options, b); b.asked.Load() != 0 {
		t.Errorf("got %d memories asked by id, want none", b.asked.Load())
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`
		select memory_store(jsonb_build_object('id', 'm-' || i, 'namespace', 'ns', 'title', 't' || i, 'content', 'c', 'tier', 'long', 'source', 'api',
			'metadata', jsonb_build_object('scope', 'team')))
		from generate_series(1, 1300) i`)
	w.mirror()
	w.push("deletions", `"m-17"`, `"m-1222"`)
	w.push("memories", strings.ReplaceAll(w.strings(`select memory_json(m)::text from memories m where id = 'm-1'`)[0], `"m-1"`, `"zzz"`))
	limits := map[int]bool{}
	b := &between{Reader: w.client, memories: func(page peer.Page, list []peer.StoredMemory) ([]peer.StoredMemory, error) {
		limits[page.Limit] = true
		if page.Limit > 300 {
			return nil, fmt.Errorf("too long: %w", peer.ErrLongAnswer)
		}
		return list, nil
	}}
	report, differences := w.compare(quick(), b)
	keys := []string{}
	for _, d := range differences {
		keys = append(keys, string(d.Kind)+" "+d.Key)
	}
	if diff := cmp.Diff(keys, []string{"missing m-1222", "missing m-17"}); diff != "" || report.Memories != 1300 {
		t.Errorf("of %d memories (-got +want):\n%s", report.Memories, diff)
	}
	if !limits[250] || limits[125] {
		t.Errorf("got pages of %v, want them halved down to 250", limits)
	}
	options := quick()
	options.Namespaces = []string{"another"}
	if report, differences := w.compare(options, b); len(differences) > 0 || report.Memories != 0 || report.Namespaces != 1 {
		t.Errorf("another namespace: got %v, %+v, want nothing", differences, report)
	}
}

// A peer that answers nonsense costs a bounded number of requests and gets nothing repaired that it made up.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	garbage := func(page peer.Page) (list []peer.StoredMemory) {
		for i := range page.Limit {
			list = append(list, peer.StoredMemory{ID: fmt.Sprintf("x-%d", page.Offset+i)})
		}
		return list
	}
	for _, tt := range []struct {
		name string
		b    *between
		note string
		most int64
	}{
		{"repeats a page", &between{memories: func(page peer.Page, _ []peer.StoredMemory) ([]peer.StoredMemory, error) {
			page.Offset = 0
			return garbage(page), nil
		}}, "does not page through its memories", 1020},
		{"has no end", &between{gone: true, memories: func(page peer.Page, _ []peer.StoredMemory) ([]peer.StoredMemory, error) {
			return garbage(page), nil
		}}, "many more memories than the store has", 11_100},
		{"has ids that are none", &between{memories: func(_ peer.Page, list []peer.StoredMemory) ([]peer.StoredMemory, error) {
			return append(list, peer.StoredMemory{ID: "../x\x00"}, peer.StoredMemory{}), nil
		}}, "ids that no receiver accepts", 20},
		{"repeats its archive", &between{archive: func(page peer.Page) ([]peer.ArchivedMemory, error) {
			return slices.Repeat([]peer.ArchivedMemory{{ID: "x", Namespace: "\x00"}}, page.Limit), nil
		}}, "does not page through its archive", 20},
		{"repeats its pending actions", &between{pendings: func(page peer.Page) ([]peer.StoredPending, error) {
			return slices.Repeat([]peer.StoredPending{{ID: "x\x00"}}, page.Limit), nil
		}}, "does not list its pending actions", 20},
		{"shows no archive", &between{archive: func(peer.Page) ([]peer.ArchivedMemory, error) {
			return nil, &peer.Error{Class: peer.ClassForbidden, Status: 403}
		}}, "does not show its archive", 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.store("m-1", nil)
			w.exec(`select pending_put('{"id":"p-1","action_type":"other","namespace":"ns","requested_by":"ai:x","payload":1}')`)
			w.mirror()
			tt.b.Reader = w.client
			options := quick()
			options.Repair = verify.On
			report, _ := w.compare(options, tt.b)
			if tt.note != "" && !strings.Contains(strings.Join(report.Notes, ", "), tt.note) {
				t.Errorf("got notes %q, want one that says %q", report.Notes, tt.note)
			}
			if report.Requests > tt.most || report.Repairs > 0 {
				t.Errorf("got %d requests and %d repairs, want at most %d and none", report.Requests, report.Repairs, tt.most)
			}
		})
	}
}

// A repair is asked for, waited for, and looked at again.
func TestRepairIsAwaited(t *testing.T) {
	t.Parallel()
	for _, mended := range []bool{true, false} {
		t.Run(fmt.Sprintf("mended %t", mended), func(t *testing.T) {
			t.Parallel()
			w := furnished(t)
			w.push("deletions", `"m-3"`, `"private-1"`)
			w.push("namespace_meta_clears", `"ns/sub"`)
			w.push("memories", strings.ReplaceAll(w.strings(`select memory_json(m)::text from memories m where id = 'm-4'`)[0], `m-4`, `unknown`))
			done := make(chan struct{})
			go func() { // the job
				defer close(done)
				ticker := time.NewTicker(time.Millisecond)
				defer ticker.Stop()
				for t.Context().Err() == nil && len(w.strings(`select key from repairs`)) < 4 {
					<-ticker.C
				}
				if mended {
					w.push("deletions", `"unknown"`)
					w.mirror()
				}
				w.exec(`delete from repairs`)
			}()
			options := quick()
			options.Repair, options.Await, options.DeleteUnknown = verify.On, time.Minute, verify.On
			report, differences := w.compare(options, w.client)
			<-done
			left := int64(0)
			if !mended {
				left = 4
			}
			if len(differences) != 4 || report.Repairs != 4 || report.Left != left || report.Equal() != mended {
				t.Errorf("got %v, %+v, want 4 repairs and %d left", differences, report, left)
			}
			if list := w.strings(`select id from tombstones where id = 'unknown'`); len(list) != 1 {
				t.Error("the unknown memory does not count as deleted")
			}
		})
	}
}

// Without a worker the repairs stay, and so do the differences.
func TestRepairsThatNobodyDoes(t *testing.T) {
	t.Parallel()
	w := furnished(t)
	w.push("deletions", `"m-3"`)
	options := quick()
	options.Repair, options.Await = verify.On, time.Millisecond
	report, _, err := w.try(t.Context(), options, w.client)
	if !errors.Is(err, verify.ErrRepairsWait) || report.Repairs != 1 || report.Left != 1 {
		t.Errorf("got %v, %+v, want %v and one difference that is left", err, report, verify.ErrRepairsWait)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`delete from peers`)
	if _, _, err := w.try(t.Context(), quick(), w.client); !errors.Is(err, verify.ErrUnknownPeer) {
		t.Errorf("got %v, want %v", err, verify.ErrUnknownPeer)
	}
	w.exec(`insert into peers (id) values ('a')`)
	w.store("m-1", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	b := &between{Reader: w.client, memory: func(string) { cancel(stop) }}
	if _, _, err := w.try(ctx, quick(), b); err == nil {
		t.Error("a comparison that was cancelled says that it is whole")
	}
}
