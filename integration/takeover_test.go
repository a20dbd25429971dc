package integration

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// lookEvery is how often the peers' logs are read on.
	lookEvery = 50 * time.Millisecond

	// inFlight is how long a push that a killed worker had sent may take to be applied: what comes sooner is not another worker's.
	inFlight = 200 * time.Millisecond
)

// takeovers measures, from the peers' logs, how long it takes after a worker's death until another one pushes what the dead one had: the batches of
// its fan-outs and the lanes of its retries.
type takeovers struct {
	fleet *fleet

	mu    sync.Mutex
	open  []orphan
	took  []time.Duration
	lanes map[string]int16 // of namespaces
	read  map[string]int64 // how far each peer's log
}

// orphan is a lane that a dead worker had.
type orphan struct {
	peer  string // "": of any
	lane  int16
	since time.Time // the worker's death
}

// watchTakeovers reads the peers' logs until the test ends.
func watchTakeovers(t *testing.T, f *fleet) *takeovers {
	t.Helper()
	w := &takeovers{fleet: f, lanes: map[string]int16{}, read: map[string]int64{}}
	var reading sync.WaitGroup
	stop := make(chan struct{})
	reading.Go(func() {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				w.look(t.Context())
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		reading.Wait()
	})
	return w
}

// died notes what a worker had that has ended just now. What it had given back, or not taken yet, is nobody's to take over.
func (w *takeovers) died(ctx context.Context, p *process, at time.Time) error {
	rows, err := w.fleet.pool.Query(ctx, `
		with had as (
			select kind, args from river_job
			where state = 'running' and attempted_by[cardinality(attempted_by)] = $1
		), lanes as (
			select '' as peer, b.lane, b.number - 1 as after, b.number as upto
			from batches b join had on had.kind = 'fan_out' and (had.args ->> 'fan_out')::bigint = b.fan_out
			where b.verdict = 'pending'
			union all
			select l.peer, l.lane, l.cursor, l.pushed_to
			from lagging l join had on had.kind = 'peer_retry' and had.args ->> 'peer' = l.peer and (had.args ->> 'lane')::smallint = l.lane
			where l.holder is not null
		)
		select peer, lane from lanes
		where exists ( -- a store, which a peer's log shows with its namespace
			select from batches b join outbox o on o.id = any (b.entries)
			where b.lane = lanes.lane and b.number > lanes.after and b.number <= lanes.upto and o.kind = 'store')`, p.client())
	if err != nil {
		return err
	}
	defer rows.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for rows.Next() {
		o := orphan{since: at}
		if err := rows.Scan(&o.peer, &o.lane); err != nil {
			return err
		}
		w.open = append(w.open, o)
	}
	return rows.Err()
}

// look reads what the peers have applied since the last look. Errors are left for the next one: a peer may be down.
func (w *takeovers) look(ctx context.Context) {
	for _, p := range w.fleet.peers {
		applied, err := p.logAfter(ctx, w.read[p.id])
		if err != nil || len(applied) == 0 {
			continue
		}
		w.read[p.id] = applied[len(applied)-1].Seq
		for _, a := range applied {
			if a.Op == "store" {
				w.pushed(ctx, p.id, a)
			}
		}
	}
}

func (w *takeovers) pushed(ctx context.Context, peer string, a applied) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.open) == 0 {
		return
	}
	lane, known := w.lanes[a.Namespace]
	if !known {
		if err := w.fleet.pool.QueryRow(ctx, `select outbox_lane($1)`, a.Namespace).Scan(&lane); err != nil {
			return
		}
		w.lanes[a.Namespace] = lane
	}
	w.open = slices.DeleteFunc(w.open, func(o orphan) bool {
		took := a.At.Sub(o.since)
		if o.lane != lane || o.peer != "" && o.peer != peer || took < inFlight {
			return false
		}
		w.took = append(w.took, took)
		return true
	})
}

// distribution is the times so far. Lanes that needed no push any more have none.
func (w *takeovers) distribution() distribution {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(slices.Values(w.took))
}

// distribution is a sorted list of times.
type distribution []time.Duration

// at is a quantile, 0 if there are no times.
func (d distribution) at(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(int(q*float64(len(d))), len(d)-1)].Round(10 * time.Millisecond)
}

func (d distribution) String() string {
	return fmt.Sprintf("n %d, p50 %s, p95 %s, p99 %s, max %s", len(d), d.at(.5), d.at(.95), d.at(.99), d.at(1))
}
