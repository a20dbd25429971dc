//go:build unix

package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Goals of the design for the machine class that it names: 2 cores, everything on them, 3 peers, 32 writers.
const (
	goalOfBare  = 0.5
	goalOfPlain = 4.0
	goalP50     = 10.0 // ms
	goalP99     = 40.0

	// busyShare is how much of the processors others may use before the report warns.
	busyShare = 0.1

	reached = "reached"
	missed  = "missed"
)

// Setup is what was asked for.
type Setup struct {
	Writers      int     `json:"writers"`
	Seconds      float64 `json:"seconds"`
	Rounds       int     `json:"rounds"`
	Peers        int     `json:"peers"`
	Signing      Signing `json:"signing"`
	File         string  `json:"file"` // its name; "." for generated memories
	ContentBytes int     `json:"content_bytes"`
}

// Report is a whole run.
type Report struct {
	Machine Machine  `json:"machine"`
	Setup   Setup    `json:"setup"`
	Samples []Sample `json:"samples"`

	Rates       map[Scenario]Spread `json:"rates"`        // writes a second, all peers having everything
	CommitRates map[Scenario]Spread `json:"commit_rates"` // while the writers wrote
	Tails       map[Scenario]Spread `json:"tail_seconds"`
	OfBare      float64             `json:"ours_of_bare"`        // median of ours by median of bare; 0: not measured
	OfPlain     float64             `json:"ours_of_plain"`       // likewise
	CPUOfBare   float64             `json:"ours_of_bare_by_cpu"` // the same ratio by processor time per write; 0: not told
	Latency     *LatencySample      `json:"latency,omitempty"`
}

// summarize fills in what follows from the samples.
func (r *Report) summarize() {
	r.Rates, r.CommitRates, r.Tails = map[Scenario]Spread{}, map[Scenario]Spread{}, map[Scenario]Spread{}
	for _, scenario := range []Scenario{Bare, Ours, Plain} {
		if len(r.of(scenario)) == 0 {
			continue
		}
		r.Rates[scenario] = r.spread(scenario, func(s Sample) float64 { return s.Rate })
		r.CommitRates[scenario] = r.spread(scenario, func(s Sample) float64 { return s.CommitRate })
		r.Tails[scenario] = r.spread(scenario, func(s Sample) float64 { return s.TailSeconds })
	}
	r.OfBare = ratio(r.Rates[Ours].Median, r.Rates[Bare].Median)
	r.OfPlain = ratio(r.Rates[Ours].Median, r.Rates[Plain].Median)
	total := func(s Sample) float64 { return s.CPU.Total() }
	if r.Machine.Own { // somebody else's server does not tell its part
		r.CPUOfBare = ratio(r.spread(Bare, total).Median, r.spread(Ours, total).Median)
	}
	for _, s := range r.of(Latency) {
		if r.Latency == nil {
			r.Latency = &LatencySample{}
		}
		r.Latency.verdict = append(r.Latency.verdict, s.Quorum.verdict...)
		r.Latency.silent = append(r.Latency.silent, s.Quorum.silent...)
		r.Latency.store = append(r.Latency.store, s.Quorum.store...)
		r.Latency.bare = append(r.Latency.bare, s.Quorum.bare...)
	}
	if r.Latency != nil {
		r.Latency.summarize()
	}
}

func (r *Report) of(scenario Scenario) []Sample {
	var list []Sample
	for _, s := range r.Samples {
		if s.Scenario == scenario {
			list = append(list, s)
		}
	}
	return list
}

func (r *Report) spread(scenario Scenario, figure func(Sample) float64) Spread {
	var values []float64
	for _, s := range r.of(scenario) {
		values = append(values, figure(s))
	}
	return spread(values)
}

// progress is one measurement, for a person who waits.
func (s Sample) progress(rounds int) string {
	head := fmt.Sprintf("round %d/%d  %-8s", s.Round, rounds, s.Scenario)
	if q := s.Quorum; q != nil {
		return fmt.Sprintf("%s commit to verdict p50 %.1f ms, p99 %.1f ms; after silence p50 %.1f ms", head, q.Verdict.P50, q.Verdict.P99, q.Silent.P50)
	}
	return fmt.Sprintf("%s %6.0f writes/s (commits %.0f/s, tail %.2f s)", head, s.Rate, s.CommitRate, s.TailSeconds)
}

// Text writes the report for people. command is what repeats it.
func (r *Report) Text(w io.Writer, command string) error {
	var b strings.Builder
	own := "the server of --database"
	if r.Machine.Own {
		own = "a durable server of this run's own"
	}
	memories := fmt.Sprintf("generated memories with %d bytes of content", r.Setup.ContentBytes)
	if r.Setup.File != "." {
		memories = "memories like those of " + r.Setup.File
	}
	fmt.Fprintf(&b, "%d x %s, %s; Postgres %s, %s\n%s\n", r.Machine.Cores, r.Machine.CPU, r.Machine.OS, r.Machine.Postgres, own, r.Machine.Settings)
	fmt.Fprintf(&b, "%d writers for %s, %d rounds; %d peers on loopback, signatures %s; %s; all on this machine\n\n",
		r.Setup.Writers, time.Duration(r.Setup.Seconds*float64(time.Second)), r.Setup.Rounds, r.Setup.Peers, r.Setup.Signing, memories)

	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	r.throughputTable(table)
	r.costTable(table)
	r.latencyTable(table)
	if err := table.Flush(); err != nil {
		return err
	}
	r.verdicts(&b)
	r.statementList(&b)
	fmt.Fprintf(&b, "\nRepeat with: %s\n", command)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) throughputTable(w io.Writer) {
	if len(r.Rates) == 0 {
		return
	}
	line(w, "writes/s until all peers have all", "median", "min..max", "commits/s", "tail s", "commit p50 ms", "p99 ms", "entries/push")
	for _, scenario := range []Scenario{Bare, Ours, Plain} {
		rate, ok := r.Rates[scenario]
		if !ok {
			continue
		}
		perPush := "-"
		if n := r.spread(scenario, func(s Sample) float64 { return ratio(float64(s.Writes), float64(s.FanOuts)) }); n.Median > 0 {
			perPush = fmt.Sprintf("%.1f", n.Median)
		}
		line(w, string(scenario), fmt.Sprintf("%.0f", rate.Median), fmt.Sprintf("%.0f..%.0f", rate.Min, rate.Max),
			fmt.Sprintf("%.0f", r.CommitRates[scenario].Median), fmt.Sprintf("%.2f", r.Tails[scenario].Median),
			fmt.Sprintf("%.1f", r.spread(scenario, func(s Sample) float64 { return s.Commit.P50 }).Median),
			fmt.Sprintf("%.1f", r.spread(scenario, func(s Sample) float64 { return s.Commit.P99 }).Median), perPush)
	}
	line(w)
}

func (r *Report) costTable(w io.Writer) {
	if len(r.Rates) == 0 {
		return
	}
	line(w, "CPU seconds per 1000 writes", "postgres", "writers", "worker", "peers", "all", "log KiB/write", "worker peak MiB")
	for _, scenario := range []Scenario{Bare, Ours, Plain} {
		if _, ok := r.Rates[scenario]; !ok {
			continue
		}
		at := func(figure func(Sample) float64) string {
			v := r.spread(scenario, figure).Median
			if v == 0 {
				return "-" // not told, or not there
			}
			return fmt.Sprintf("%.3f", v)
		}
		line(w, string(scenario),
			at(func(s Sample) float64 { return s.CPU.Postgres }), at(func(s Sample) float64 { return s.CPU.Writers }),
			at(func(s Sample) float64 { return s.CPU.Worker }), at(func(s Sample) float64 { return s.CPU.Peers }),
			at(func(s Sample) float64 { return s.CPU.Total() }),
			fmt.Sprintf("%.2f", r.spread(scenario, func(s Sample) float64 { return s.WALBytes / 1024 }).Median),
			fmt.Sprintf("%.0f", r.spread(scenario, func(s Sample) float64 { return float64(s.WorkerPeak) / (1 << 20) }).Max))
	}
	line(w)
}

func (r *Report) latencyTable(w io.Writer) {
	if r.Latency == nil {
		return
	}
	line(w, "one writer, ms", "n", "p50", "p95", "p99", "max")
	for _, q := range []struct {
		name string
		q    Quantiles
	}{
		{"commit to verdict", r.Latency.Verdict},
		{"the same, after 1.5 s of silence", r.Latency.Silent},
		{"transaction with outbox.Store", r.Latency.Store},
		{"transaction with the row alone", r.Latency.Bare},
	} {
		line(w, q.name, fmt.Sprint(q.q.N), fmt.Sprintf("%.2f", q.q.P50), fmt.Sprintf("%.2f", q.q.P95), fmt.Sprintf("%.2f", q.q.P99),
			fmt.Sprintf("%.2f", q.q.Max))
	}
	line(w)
}

// line writes cells of a table; the builder behind it takes everything.
func line(w io.Writer, cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) }

func (r *Report) verdicts(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if r.OfBare > 0 {
		say("ours/bare   %.2f   (goal: at least %.1f)   %s", r.OfBare, goalOfBare, atLeast(r.OfBare, goalOfBare))
	}
	if r.CPUOfBare > 0 {
		say("the same by CPU seconds %.2f   (what a machine with nothing else to do comes to; other programs change it little)", r.CPUOfBare)
	}
	if r.OfPlain > 0 {
		say("ours/plain  %.2f   (goal: at least %.0f)     %s", r.OfPlain, goalOfPlain, atLeast(r.OfPlain, goalOfPlain))
	}
	if l := r.Latency; l != nil {
		say("commit to quorum  p50 %.1f ms (goal: at most %.0f)  %s,  p99 %.1f ms (goal: at most %.0f)  %s", l.Verdict.P50, goalP50,
			atMost(l.Verdict.P50, goalP50), l.Verdict.P99, goalP99, atMost(l.Verdict.P99, goalP99))
	}
	var foreign []float64
	for _, s := range r.Samples {
		if s.Scenario != Latency {
			foreign = append(foreign, s.Foreign)
		}
	}
	if others := spread(foreign); others.Max > busyShare {
		say("other programs used %.0f %% of the processors meanwhile (%.0f..%.0f %%): rates are too low, times too long; compare ratios and CPU seconds",
			100*others.Median, 100*others.Min, 100*others.Max)
	}
	for _, s := range r.of(Ours) {
		if s.NotMet > 0 {
			say("round %d: %d of %d entries had no quorum before the deadline; they were delivered later", s.Round, s.NotMet, s.Writes)
		}
	}
	say("every peer held exactly the committed rows at the end of each round")
}

func atLeast(v, goal float64) string {
	if v >= goal {
		return reached
	}
	return missed
}

func atMost(v, goal float64) string {
	if v <= goal {
		return reached
	}
	return missed
}

func (r *Report) statementList(w io.Writer) {
	seen := map[Scenario]bool{}
	for _, s := range r.Samples {
		if len(s.Statement) == 0 || seen[s.Scenario] {
			continue
		}
		seen[s.Scenario] = true
		_, _ = fmt.Fprintf(w, "\n%s: the server's costliest statements (%d writes; total ms, calls, mean ms, rows, blocks hit, log KiB)\n", s.Scenario, s.Writes)
		for _, q := range s.Statement {
			_, _ = fmt.Fprintf(w, "%9.0f %8d %8.3f %8d %9d %8d  %.160s\n", q.TotalMS, q.Calls, q.MeanMS, q.Rows, q.Hits, q.WAL>>10, q.Query)
		}
	}
}
