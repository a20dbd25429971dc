//go:build unix

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"quorumbox/jobs"
)

// Silence says how a peer is away.
type Silence string

// The ways to be away.
const (
	Killed Silence = "killed" // its process is gone: connections are refused
	Hangs  Silence = "hangs"  // it takes requests and answers none
)

// OutageConfig says how to measure an outage. Of Config, Rounds, Only, LatencyRuns and Statements have no meaning here, and Duration is how long the calm
// before and after is measured.
type OutageConfig struct {
	Config

	Entries int     // that are written while the last peer is away, 100 to 10,000,000
	Share   float64 // of the rate that this machine reaches, at which is written all the time, above 0 to 0.9
	Rate    float64 // writes a second in place of Share, up to 100,000; 0: by Share
	How     Silence
	Alone   bool // nothing is written while the peer catches up
}

// Validate returns everything that is wrong with the configuration.
func (c OutageConfig) Validate() error {
	errs := []error{c.Config.Validate()}
	if c.Entries < 100 || c.Entries > 10_000_000 {
		errs = append(errs, fmt.Errorf("entries is %d: must be 100 to 10,000,000", c.Entries))
	}
	if c.Share <= 0 || c.Share > 0.9 {
		errs = append(errs, fmt.Errorf("share is %v: must be above 0, to 0.9", c.Share))
	}
	if c.Rate < 0 || c.Rate > 100_000 {
		errs = append(errs, fmt.Errorf("rate is %v: must be 0 to 100,000", c.Rate))
	}
	if c.How != Killed && c.How != Hangs {
		errs = append(errs, fmt.Errorf("how is %q: must be %s or %s", c.How, Killed, Hangs))
	}
	if c.Peers < 2 {
		errs = append(errs, errors.New("an outage needs 2 peers or more: one that is away, and one that is not"))
	}
	return errors.Join(errs...)
}

// calibration is for how long the machine's full rate is measured.
const calibration = 3 * time.Second

// RunOutage writes at a fixed rate while one peer goes away for so many entries and comes back. Like [Run] it leaves nothing behind, and it fails if a peer does
// not hold exactly what was committed at the end.
func RunOutage(ctx context.Context, cfg OutageConfig) (report OutageReport, err error) {
	cfg.Rounds, cfg.LatencyRuns, cfg.Only, cfg.Statements = 1, 1, nil, 0
	if err := cfg.Validate(); err != nil {
		return report, fmt.Errorf("bench: %w", err)
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	b := &bench{cfg: cfg.Config}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	if err := b.open(ctx); err != nil {
		return report, fmt.Errorf("bench: %w", err)
	}
	if report.Machine, err = b.machine(ctx); err != nil {
		return report, fmt.Errorf("bench: %w", err)
	}
	report.Setup, report.How, report.Entries, report.Alone = b.setup(), cfg.How, cfg.Entries, cfg.Alone
	err = b.withStack(ctx, Ours, func(s *stack) error {
		o := &outage{stack: s, cfg: cfg, report: &report, away: cfg.Peers - 1}
		return o.run(ctx)
	})
	if err != nil {
		return report, fmt.Errorf("bench: outage: %w", err)
	}
	return report, nil
}

// outage is one run.
type outage struct {
	*stack

	cfg    OutageConfig
	report *OutageReport
	away   int // the peer that goes away
}

func (o *outage) run(ctx context.Context) error {
	if err := o.warmUp(ctx, writeOurs, oursDone); err != nil {
		return err
	}
	if err := o.calibrate(ctx); err != nil {
		return err
	}
	rate := o.report.Rate
	o.bench.cfg.Progress(fmt.Sprintf("full rate %.0f writes/s; writing %.0f/s from now on", o.report.FullRate, rate))

	calm := max(1, int(rate*o.cfg.Duration.Seconds()))
	if err := o.phase(ctx, &o.report.Before, func(ctx context.Context) error { return o.write(ctx, rate, calm) }); err != nil {
		return err
	}
	if err := o.goAway(ctx); err != nil {
		return err
	}
	if err := o.phase(ctx, &o.report.During, func(ctx context.Context) error { return o.write(ctx, rate, o.cfg.Entries) }); err != nil {
		return err
	}
	if err := o.countProbes(ctx); err != nil {
		return err
	}
	if err := o.phase(ctx, &o.report.Return, func(ctx context.Context) error { return o.comeBack(ctx, rate) }); err != nil {
		return err
	}
	if err := o.phase(ctx, &o.report.After, func(ctx context.Context) error { return o.write(ctx, rate, calm) }); err != nil {
		return err
	}
	if err := o.drained(ctx, oursDone); err != nil {
		return err
	}
	counted, err := o.counters(ctx)
	if err != nil {
		return err
	}
	o.report.MaxConcurrent = counted.MaxConcurrentPushes
	if peak, err := peakRSS(o.worker.Pid()); err == nil { // not told by every system
		o.report.WorkerPeak = peak
	}
	return o.verify(ctx)
}

// calibrate finds out how many writes a second reach all peers.
func (o *outage) calibrate(ctx context.Context) error {
	full := *o.stack
	b := *o.bench
	b.cfg.Duration = calibration
	full.bench = &b
	w, err := full.load(ctx, writeOurs)
	if err != nil {
		return err
	}
	if err := o.drained(ctx, oursDone); err != nil {
		return err
	}
	o.report.FullRate = float64(w.count) / time.Since(w.first).Seconds()
	o.report.Rate = o.cfg.Rate
	if o.report.Rate == 0 {
		o.report.Rate = o.report.FullRate * o.cfg.Share
	}
	return nil
}

// write writes so many memories at a fixed rate, spread over the writers. One that is late is not made up for by haste: the next ones are late, too.
func (o *outage) write(ctx context.Context, rate float64, count int) error {
	var (
		mu   sync.Mutex
		next = time.Now()
		left = count
	)
	ticket := func() (at time.Time, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if left == 0 {
			return at, false
		}
		left--
		next = next.Add(time.Duration(float64(time.Second) / rate))
		if now := time.Now(); next.Before(now.Add(-time.Second)) {
			next = now
		}
		return next, true
	}
	group, ctx := errgroup.WithContext(ctx)
	for range o.cfg.Writers {
		group.Go(func() error {
			conn, err := o.pool.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			for {
				at, ok := ticket()
				if !ok {
					return nil
				}
				if err := wait(ctx, time.Until(at)); err != nil {
					return err
				}
				m := o.memories.new()
				if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return writeOurs(ctx, tx, m) }); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// phase measures what was written while do ran, and what the peer that is away cost then.
func (o *outage) phase(ctx context.Context, p *Phase, do func(ctx context.Context) error) error {
	var begin, end time.Time
	const clock = `select clock_timestamp()`
	if err := o.pool.QueryRow(ctx, clock).Scan(&begin); err != nil {
		return err
	}
	sampling, stop := context.WithCancel(ctx)
	var sampler errgroup.Group
	sampler.Go(func() error { return o.sample(sampling, p) })
	err := do(ctx)
	stop()
	if err := errors.Join(err, sampler.Wait(), o.workerProblem()); err != nil {
		return err
	}
	if err := o.pool.QueryRow(ctx, clock).Scan(&end); err != nil {
		return err
	}
	if err := o.decided(ctx); err != nil {
		return err
	}
	p.Seconds = end.Sub(begin).Seconds()
	err = o.pool.QueryRow(ctx, `
		select count(*), count(*) filter (where b.verdict = 'not_met'),
		       coalesce(percentile_disc(0.5) within group (order by extract(epoch from b.decided_at - o.created_at)), 0) * 1000,
		       coalesce(percentile_disc(0.95) within group (order by extract(epoch from b.decided_at - o.created_at)), 0) * 1000,
		       coalesce(percentile_disc(0.99) within group (order by extract(epoch from b.decided_at - o.created_at)), 0) * 1000,
		       coalesce(max(extract(epoch from b.decided_at - o.created_at)), 0) * 1000
		from batches b
		cross join lateral unnest(b.entries) e (id)
		join outbox o on o.id = e.id
		where o.created_at >= $1 and o.created_at < $2`, begin, end).
		Scan(&p.Writes, &p.NotMet, &p.Verdict.P50, &p.Verdict.P95, &p.Verdict.P99, &p.Verdict.Max)
	if err != nil {
		return fmt.Errorf("read verdicts: %w", err)
	}
	p.Verdict.N, p.Rate = p.Writes, float64(p.Writes)/p.Seconds
	o.bench.cfg.Progress(p.progress())
	return nil
}

// decided waits until everything that was written has its verdict.
func (o *outage) decided(ctx context.Context) error {
	return o.drained(ctx, `
		select not exists (select from undispatched) and not exists (select from batches where verdict = 'pending')`)
}

// samplePause is between two looks at what an outage costs.
const samplePause = 200 * time.Millisecond

// sample notes the most of everything until ctx ends.
func (o *outage) sample(ctx context.Context, p *Phase) error {
	id := peerID(o.away)
	for wait(ctx, samplePause) == nil {
		var lagging, live, doubts, repairs, failures, others int
		err := o.pool.QueryRow(ctx, `
			select (select count(*) from lagging where peer = $1),
			       (select count(*) from river_job where queue = $2 and state in ('available', 'pending', 'retryable', 'running', 'scheduled')),
			       (select count(*) from doubts where peer = $1), (select count(*) from repairs where peer = $1),
			       (select coalesce(max(failures), 0) from lagging where peer = $1),
			       (select count(*) from lagging where peer <> $1 and retry is not null)`, id, jobs.PeerQueue(id)).
			Scan(&lagging, &live, &doubts, &repairs, &failures, &others)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at what the outage costs: %w", err)
		}
		p.Lagging, p.LiveJobs, p.Doubts = max(p.Lagging, lagging), max(p.LiveJobs, live), max(p.Doubts, doubts)
		p.Repairs, p.Failures, p.OthersLagging = max(p.Repairs, repairs), max(p.Failures, failures), max(p.OthersLagging, others)
	}
	return nil
}

func (o *outage) goAway(ctx context.Context) error {
	if o.cfg.How == Hangs {
		counted, err := o.counters(ctx)
		o.report.pushesBefore = counted.total()
		return errors.Join(err, o.ask(ctx, http.MethodPut, "/_ref/faults", []byte(`{"mode":"hang"}`), nil))
	}
	o.peers[o.away].stop(ctx)
	return nil
}

// countProbes notes how often the peer was asked while it was away: by its own count, or, where it is not there to count, by that of failures in a row.
func (o *outage) countProbes(ctx context.Context) error {
	o.report.Probes = int64(o.report.During.Failures)
	if o.cfg.How == Hangs {
		counted, err := o.counters(ctx)
		if err != nil {
			return err
		}
		o.report.Probes = counted.total() - o.report.pushesBefore
	}
	return nil
}

// comeBack lets the peer answer again and writes on until it has all that was there at that moment.
func (o *outage) comeBack(ctx context.Context, rate float64) error {
	drain, err := jobs.NewDrain(ctx, o.pool, peerID(o.away))
	if err != nil {
		return err
	}
	if o.cfg.How == Hangs {
		err = o.ask(ctx, http.MethodDelete, "/_ref/faults", nil, nil)
	} else {
		err = o.restartPeer(ctx, o.away)
	}
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	var writers errgroup.Group
	writers.Go(func() error {
		if o.cfg.Alone {
			return nil
		}
		if err := o.write(writing, rate, 1<<40); writing.Err() == nil {
			return err
		}
		return nil
	})
	begin := time.Now()
	var missed int64
	var first time.Time
	waiting, giveUp := context.WithTimeoutCause(ctx, drainPatience, errors.New("the peer did not catch up in time"))
	defer giveUp()
	for {
		s, err := drain.Look(waiting)
		if err != nil {
			return errors.Join(err, context.Cause(waiting))
		}
		switch {
		case !first.IsZero():
		case s.Missing >= missed: // more, while what was written last is dispatched
			missed = s.Missing
		default:
			first = time.Now()
			o.report.FirstSeconds = first.Sub(begin).Seconds()
		}
		if !first.IsZero() && s.Undispatched+s.Undecided+s.Missing == 0 {
			break
		}
		if err := wait(waiting, drainPoll); err != nil {
			return err
		}
	}
	o.report.Missed = missed
	o.report.DrainSeconds = time.Since(first).Seconds()
	o.report.DrainRate = ratio(float64(missed), o.report.DrainSeconds)
	stop()
	return writers.Wait()
}

// counted is what matters here of a peer's own counters.
type counted struct {
	Pushes              map[string]int64 `json:"pushes"`
	ConcurrentPushes    int64            `json:"concurrent_pushes"`
	MaxConcurrentPushes int64            `json:"max_concurrent_pushes"`
}

func (c counted) total() int64 {
	n := c.ConcurrentPushes
	for _, pushes := range c.Pushes {
		n += pushes
	}
	return n
}

func (o *outage) counters(ctx context.Context) (c counted, err error) {
	return c, o.ask(ctx, http.MethodGet, "/_ref/counters", nil, &c)
}

// ask sends a request to the pages of the peer that goes away, which always answer.
func (o *outage) ask(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, o.urls[o.away]+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxLine))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s answered %s: %.200s", method, path, answer.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}
