package jobs_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dto "github.com/prometheus/client_model/go"

	"quorumbox/internal/peer"
	"quorumbox/internal/refpeer"
)

// counted is the counters of a mesh that are not 0, by name and label value.
func (m *mesh) counted(names ...string) map[string]int {
	m.t.Helper()
	families, err := m.counts.Registry().Gather()
	if err != nil {
		m.t.Fatal(err)
	}
	got := map[string]int{}
	for _, f := range families {
		for _, name := range names {
			if f.GetName() != name {
				continue
			}
			for _, series := range f.GetMetric() {
				if n := series.GetCounter().GetValue(); n > 0 {
					got[name+labels(series)] = int(n)
				}
			}
		}
	}
	return got
}

func labels(series *dto.Metric) string {
	var b strings.Builder
	for _, l := range series.GetLabel() {
		b.WriteString(" " + l.GetValue())
	}
	return b.String()
}

const (
	dropped  = "ai_memory_federation_fanout_dropped_total"
	partial  = "ai_memory_federation_partial_quorum_total"
	verdicts = "replication_quorum_ack_total"
	failures = "replication_quorum_failures_total"
)

// The lines of a fan-out.
const (
	toldAnnounced = "federation::broadcast"
	toldMissing   = "peer did not acknowledge"
	toldLate      = "peer acknowledged after the verdict"
	toldPartial   = "partial quorum: some peers miss what a quorum has"
)

type line = map[string]any

// wantTold compares the lines with a message, in the order of the peers, in the attributes that are wanted of them.
func (m *mesh) wantTold(message string, want ...line) {
	m.t.Helper()
	got := m.log.lines(m.t, message)
	for _, l := range got {
		maps.DeleteFunc(l, func(attr string, _ any) bool {
			return !slices.ContainsFunc(want, func(w line) bool { _, named := w[attr]; return named })
		})
	}
	slices.SortStableFunc(got, func(a, b line) int { return strings.Compare(fmt.Sprint(a["peer"]), fmt.Sprint(b["peer"])) })
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		m.t.Errorf("lines %q (-want +got):\n%s", message, diff)
	}
}

// ended waits until the one fan-out has: what it tells at its end is told after it is recorded, and before River hears of it.
func (m *mesh) ended() {
	m.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		select {
		case event := <-m.completed:
			if event.Job.Kind == "fan_out" {
				return
			}
		case <-deadline.C:
			m.dump()
			m.t.Fatal("the fan-out has not ended")
		}
	}
}

func failing(count int) refpeer.Fault {
	return refpeer.Fault{Mode: refpeer.ModeStatus, Status: 503, Count: count}
}

const failedTwice = "first: http 503 Service Unavailable; retry: http 503 Service Unavailable"

// Checklist rows 41 to 45: what is logged and counted, by how the peers behave.
func TestWhatAFanOutTells(t *testing.T) {
	t.Parallel()
	missing := func(p, class, reason string) line {
		return line{"level": "WARN", "peer": p, "memory_id": "m-1", "class": class, "reason": reason}
	}
	bFailed := []line{missing("b", "unavailable", failedTwice)}
	bothFailed := []line{missing("a", "unavailable", failedTwice), bFailed[0]}
	for _, tt := range []struct {
		name     string
		writes   int
		late     []string        // these answer after the verdict
		a, b     []refpeer.Fault // of each peer's first requests
		counters map[string]int
		missing  []line
		told     []line   // of late acknowledgements
		partial  []string // the peers that it names
	}{
		{name: "all acknowledge", writes: 3, counters: map[string]int{verdicts + " met": 1}},
		{
			name: "one fails after the verdict", writes: 2, late: []string{"b"}, b: []refpeer.Fault{failing(0)},
			counters: map[string]int{verdicts + " met": 1, dropped + " peer_fail": 1, partial: 1},
			missing:  bFailed, partial: []string{"b"},
		},
		{
			name: "one drifts after the verdict, in its retry", writes: 2, late: []string{"b"},
			b:        []refpeer.Fault{failing(1), {Mode: refpeer.ModeDrift, Count: 1}},
			counters: map[string]int{verdicts + " met": 1, dropped + " id_drift": 1, partial: 1},
			missing: []line{missing("b", "id_drift",
				"first: http 503 Service Unavailable; retry: http 200 OK: the ids of the answer do not include all that were sent")},
			partial: []string{"b"},
		},
		{
			name: "one acknowledges after the verdict", writes: 2, late: []string{"b"}, b: []refpeer.Fault{failing(1)},
			counters: map[string]int{verdicts + " met": 1},
			told:     []line{{"level": "DEBUG", "peer": "b", "memory_id": "m-1"}},
		},
		{
			name: "no quorum", writes: 2, a: []refpeer.Fault{failing(0)}, b: []refpeer.Fault{failing(0)},
			counters: map[string]int{verdicts + " not_met": 1, failures + " unreachable": 1},
			missing:  bothFailed,
		},
		{
			name: "one fails, and all are needed", writes: 3, b: []refpeer.Fault{failing(0)},
			counters: map[string]int{verdicts + " not_met": 1, failures + " unreachable": 1},
			missing:  bFailed,
		},
		{
			name: "both fail, and none is needed", writes: 1, late: []string{"a", "b"},
			a: []refpeer.Fault{failing(0)}, b: []refpeer.Fault{failing(0)},
			counters: map[string]int{verdicts + " met": 1, dropped + " peer_fail": 2, partial: 1},
			missing:  bothFailed, partial: []string{"a", "b"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := setting{writes: tt.writes}
			if len(tt.late) == 0 {
				s.jobs = patient
			}
			m := startMesh(t, s)
			m.nodes["a"].fault(t, tt.a...)
			m.nodes["b"].fault(t, tt.b...)
			for _, p := range tt.late {
				m.nodes[p].hold()
			}
			m.await(m.store("m-1")...)
			for _, p := range tt.late {
				m.nodes[p].release()
			}
			m.ended()
			m.wantTold(toldAnnounced, line{
				"level": "INFO", "kind": "store", "memory_id": "m-1", "namespace": "ns", "entries": 1.0,
				"peer_count": 2.0, "quorum_w": float64(tt.writes),
			})
			m.wantTold(toldMissing, tt.missing...)
			m.wantTold(toldLate, tt.told...)
			var want []line
			if len(tt.partial) > 0 {
				var urls []string
				for _, p := range tt.partial {
					urls = append(urls, m.nodes[p].server.URL+peer.PushPath)
				}
				slices.Sort(urls)
				want = append(want, line{
					"level": "WARN", "memory_id": "m-1", "entries": 1.0, "n_missing": float64(len(urls)), "peer_urls": anys(urls),
					"batches_not_logged_before": 0.0,
				})
			}
			m.wantTold(toldPartial, want...)
			if diff := cmp.Diff(tt.counters, m.counted(dropped, partial, verdicts, failures)); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, s := range texts {
		list[i] = s
	}
	return list
}

// Checklist rows 62 and 63: every kind of entry is told about and counted alike. The reference has nothing but a line for what is not a
// store. What a peer misses is a row, whatever the kind, and it is gone when the peer has it.
func TestEveryLaneIsToldAndCounted(t *testing.T) {
	t.Parallel()
	before := map[string]int{}
	walk(t, setting{writes: 2}, func(t *testing.T, m *mesh) {
		t.Helper()
		m.log.forget()
		before = m.counted(dropped, partial, verdicts)
		m.nodes["b"].fault(t, failing(2))
		m.nodes["b"].hold()
	}, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		wantBatch(t, got, []string{"a"}, "")
		if n := m.scalar(`select count(*) from lagging where peer = 'b'`); n != 1 {
			t.Errorf("got %d rows for what b misses, want 1", n)
		}
		m.nodes["b"].release()
	}, func(t *testing.T, m *mesh, got taken) {
		t.Helper()
		var kind, key string
		err := m.pool.QueryRow(t.Context(), `select kind, key from outbox where id = $1`, got.entries[0]).Scan(&kind, &key)
		if err != nil {
			t.Fatal(err)
		}
		m.eventually("it is counted", func() bool { return m.counted(partial)[partial] > before[partial] })
		m.wantTold(toldAnnounced, line{
			"level": "INFO", "kind": kind, "memory_id": key, "namespace": team, "entries": float64(len(got.entries)),
			"peer_count": 2.0, "quorum_w": 2.0,
		})
		m.wantTold(toldMissing, line{"level": "WARN", "peer": "b", "memory_id": key, "class": "unavailable", "reason": failedTwice})
		after := m.counted(dropped, partial, verdicts)
		for _, name := range []string{verdicts + " met", dropped + " peer_fail", partial} {
			if delta := after[name] - before[name]; delta != 1 {
				t.Errorf("%s: went up by %d, want 1", name, delta)
			}
		}
	})
}

func (l *logged) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}
