package page

import (
	"maps"
	"math"
	"slices"
	"time"

	"quorumbox/internal/status"
	"quorumbox/outbox"
)

const (
	// Step is what one point of the time series stands for.
	Step = 5 * time.Second

	// Points is how many points the time series has.
	Points = 120

	// lately is what the numbers beside the time series are about.
	lately = time.Minute

	// recentBatches bounds how many batches of a lane one reading looks at: the first goes that far back, each later one to where the one before it was.
	// One that starts under much load shows less of the past, and the first reading of a fleet with a million entries is over in a fraction of a second.
	recentBatches = 200
)

// recent is what was decided in the last minutes, from what readings saw. It is one process' memory, filled from the database: a page that nobody looked at before shows
// as far back as the first reading saw. Its zero value has seen nothing.
type recent struct {
	marks status.Marks
	whole time.Time // from here on nothing was missed
	steps map[int64]*step
}

// step is what was decided within one [Step].
type step struct {
	met       int64
	notMet    map[outbox.Reason]int64
	latencies latencies
}

func newStep() *step { return &step{notMet: map[outbox.Reason]int64{}, latencies: latencies{}} }

// stepOf numbers the steps by the database's clock.
func stepOf(at time.Time) int64 { return at.UnixNano() / int64(Step) }

// add takes up decisions that were read at now, at most limit of each lane.
func (r *recent) add(decided []status.Decision, now time.Time, limit int) {
	if r.steps == nil {
		r.steps = map[int64]*step{}
	}
	var seen [outbox.Lanes]int
	oldest := map[int16]time.Time{}
	for _, d := range decided {
		r.marks[d.Lane] = max(r.marks[d.Lane], d.Number)
		seen[d.Lane]++
		if at, ok := oldest[d.Lane]; !ok || d.At.Before(at) {
			oldest[d.Lane] = d.At
		}
		r.step(stepOf(d.At)).add(d)
	}
	for lane, at := range oldest {
		if seen[lane] >= limit && at.After(r.whole) { // there may have been more
			r.whole = at
		}
	}
	first := stepOf(now) - Points
	maps.DeleteFunc(r.steps, func(n int64, _ *step) bool { return n < first })
}

func (r *recent) step(n int64) *step {
	s := r.steps[n]
	if s == nil {
		s = newStep()
		r.steps[n] = s
	}
	return s
}

// add counts the entries of a batch. Of how long they took only the oldest and the newest are known: each stands for half of them.
func (s *step) add(d status.Decision) {
	if !d.Met { // how long that took is the deadline
		s.notMet[d.Reason] += d.Entries
		return
	}
	s.met += d.Entries
	weight := float64(d.Entries) / 2
	for _, took := range []*status.Seconds{d.Oldest, d.Newest} {
		if took != nil {
			s.latencies.add(float64(*took)*1000, weight)
		}
	}
}

// view is the time series up to the last step that is over at now.
func (r *recent) view(now time.Time) recentView {
	end := stepOf(now)
	v := recentView{Step: status.Seconds(Step.Seconds()), End: time.Unix(0, end*int64(Step)).UTC()}
	for n := end - Points; n < end; n++ {
		if time.Unix(0, n*int64(Step)).Before(r.whole) {
			v.Met, v.NotMet, v.P50, v.P99 = append(v.Met, nil), append(v.NotMet, nil), append(v.P50, nil), append(v.P99, nil)
			continue
		}
		s := r.steps[n]
		if s == nil {
			s = &step{}
		}
		v.Met, v.NotMet = append(v.Met, &s.met), append(v.NotMet, new(total(s.notMet)))
		v.P50, v.P99 = append(v.P50, s.latencies.quantile(0.5)), append(v.P99, s.latencies.quantile(0.99))
	}
	v.Minute = r.minute(end)
	return v
}

// sum adds up the steps from one to before another, and says for how many of them all is known.
func (r *recent) sum(from, end int64) (all *step, known int64) {
	all = newStep()
	for n := from; n < end; n++ {
		if time.Unix(0, n*int64(Step)).Before(r.whole) {
			continue
		}
		known++
		if s := r.steps[n]; s != nil {
			all.met += s.met
			for reason, k := range s.notMet {
				all.notMet[reason] += k
			}
			for bin, weight := range s.latencies {
				all.latencies[bin] += weight
			}
		}
	}
	return all, known
}

// minute is about the last minute of steps that are over.
func (r *recent) minute(end int64) minuteView {
	all, known := r.sum(end-int64(lately/Step), end)
	m := minuteView{
		Window: status.Seconds(float64(known) * Step.Seconds()), Met: all.met, NotMet: all.notMet,
		P50: all.latencies.quantile(0.5), P99: all.latencies.quantile(0.99),
	}
	if known > 0 {
		m.PerSecond = math.Round(float64(m.Met)/float64(m.Window)*10) / 10
	}
	return m
}

// verdicts are those of [status.VerdictWindow], up to now.
func (r *recent) verdicts(now time.Time) status.Verdicts {
	end := stepOf(now) + 1
	all, known := r.sum(end-int64(status.VerdictWindow/Step), end)
	return status.Verdicts{Window: status.Seconds(float64(known) * Step.Seconds()), Met: all.met, NotMet: all.notMet}
}

func total(counts map[outbox.Reason]int64) (n int64) {
	for _, k := range counts {
		n += k
	}
	return n
}

// latencies is how much took how long, in bins that grow by a twentieth, so that a quantile is right to within three percent.
type latencies map[int]float64

const binGrowth = 1.05

func (l latencies) add(ms, weight float64) {
	l[int(math.Floor(math.Log(max(ms, 0.1))/math.Log(binGrowth)))] += weight
}

// quantile is in milliseconds; nil where there is nothing.
func (l latencies) quantile(q float64) *float64 {
	var all float64
	for _, weight := range l {
		all += weight
	}
	if all == 0 {
		return nil
	}
	var sum float64
	bins := slices.Sorted(maps.Keys(l))
	for _, bin := range bins {
		if sum += l[bin]; sum >= q*all {
			return new(middle(bin))
		}
	}
	return new(middle(bins[len(bins)-1]))
}

// middle is the middle of a bin, to a tenth of a millisecond.
func middle(bin int) float64 { return math.Round(math.Pow(binGrowth, float64(bin)+0.5)*10) / 10 }
