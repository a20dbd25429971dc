//go:build unix

package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Phase is what was measured before, during or after an outage, or while the peer caught up.
type Phase struct {
	Seconds float64 `json:"seconds"`
	Writes  int     `json:"writes"`
	Rate    float64 `json:"rate"` // writes a second
	NotMet  int     `json:"not_met"`
	// Verdict is how long after it was written an entry had its verdict. While a peer of three is away, that takes the acknowledgements of both others.
	Verdict Quantiles `json:"written_to_verdict"`

	// What the peer that goes away cost, at the worst moment.
	Lagging  int `json:"lagging_rows"`
	LiveJobs int `json:"live_jobs"`
	Doubts   int `json:"doubts"`
	Repairs  int `json:"repairs"`
	Failures int `json:"failures_in_a_row"`

	OthersLagging int `json:"lagging_rows_of_the_others"` // at the worst moment
}

// OutageReport is what [RunOutage] measured.
type OutageReport struct {
	Machine Machine `json:"machine"`
	Setup   Setup   `json:"setup"`
	How     Silence `json:"how"`
	Entries int     `json:"entries"` // written during the outage
	Alone   bool    `json:"alone"`   // nothing was written while the peer caught up

	FullRate float64 `json:"full_rate"` // writes a second until all peers had them
	Rate     float64 `json:"rate"`      // at which was written

	Before Phase `json:"before"`
	During Phase `json:"during"`
	Return Phase `json:"return"` // while the peer caught up
	After  Phase `json:"after"`

	Probes        int64   `json:"probes"`         // requests to the peer while it was away
	Missed        int64   `json:"missed"`         // entries, when it came back
	FirstSeconds  float64 `json:"first_seconds"`  // from then until the first of them had arrived
	DrainSeconds  float64 `json:"drain_seconds"`  // from then until all had
	DrainRate     float64 `json:"drain_rate"`     // entries a second
	MaxConcurrent int64   `json:"max_concurrent"` // requests at a time that the peer saw; of a killed one since its return
	WorkerPeak    int64   `json:"worker_peak_rss_bytes,omitzero"`

	pushesBefore int64
}

func (p *Phase) progress() string {
	return fmt.Sprintf("%6.1f s  %6.0f writes/s  verdict p50 %.1f ms, p99 %.1f ms, not met %d; the peer costs %d lanes, %d jobs, %d doubts, %d repairs",
		p.Seconds, p.Rate, p.Verdict.P50, p.Verdict.P99, p.NotMet, p.Lagging, p.LiveJobs, p.Doubts, p.Repairs)
}

// Text writes the report for people. command is what repeats it.
func (r *OutageReport) Text(w io.Writer, command string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d x %s, %s; Postgres %s\n%s\n", r.Machine.Cores, r.Machine.CPU, r.Machine.OS, r.Machine.Postgres, r.Machine.Settings)
	fmt.Fprintf(&b, "%d peers on loopback, signatures %s; %d writers, %.0f writes/s all the time (%.0f %% of the %.0f/s that this machine reaches)\n",
		r.Setup.Peers, r.Setup.Signing, r.Setup.Writers, r.Rate, 100*ratio(r.Rate, r.FullRate), r.FullRate)
	fmt.Fprintf(&b, "one peer (%s) for %d entries\n\n", r.How, r.Entries)

	phases := []*Phase{&r.Before, &r.During, &r.Return, &r.After}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line(table, "", "before", "during", "catching up", "after")
	row := func(name string, cell func(p *Phase) string) {
		cells := []string{name}
		for _, p := range phases {
			cells = append(cells, cell(p))
		}
		line(table, cells...)
	}
	number := func(v int) string { return fmt.Sprint(v) }
	row("seconds", func(p *Phase) string { return fmt.Sprintf("%.1f", p.Seconds) })
	row("writes/s", func(p *Phase) string { return fmt.Sprintf("%.0f", p.Rate) })
	row("written to verdict, p50 ms", func(p *Phase) string { return fmt.Sprintf("%.1f", p.Verdict.P50) })
	row("p95 ms", func(p *Phase) string { return fmt.Sprintf("%.1f", p.Verdict.P95) })
	row("p99 ms", func(p *Phase) string { return fmt.Sprintf("%.1f", p.Verdict.P99) })
	row("max ms", func(p *Phase) string { return fmt.Sprintf("%.1f", p.Verdict.Max) })
	row("not met", func(p *Phase) string { return number(p.NotMet) })
	row("lagging rows of the peer, at worst", func(p *Phase) string { return number(p.Lagging) })
	row("its live jobs", func(p *Phase) string { return number(p.LiveJobs) })
	row("its doubts", func(p *Phase) string { return number(p.Doubts) })
	row("its repairs", func(p *Phase) string { return number(p.Repairs) })
	row("lagging rows of the others", func(p *Phase) string { return number(p.OthersLagging) })
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nprobes while it was away   %d in %.0f s: %.2f a second\n", r.Probes, r.During.Seconds, ratio(float64(r.Probes), r.During.Seconds))
	beside := fmt.Sprintf("%.1f times the live rate", ratio(r.DrainRate, r.Rate))
	if r.Alone {
		beside = "with no live load"
	}
	fmt.Fprintf(&b, "after its return           the first push arrived after %s; then %d entries in %.1f s: %.0f a second, %s\n",
		time.Duration(r.FirstSeconds*float64(time.Second)).Round(100*time.Millisecond), r.Missed, r.DrainSeconds, r.DrainRate, beside)
	fmt.Fprintf(&b, "requests at a time         %d at most\n", r.MaxConcurrent)
	if r.WorkerPeak > 0 {
		fmt.Fprintf(&b, "worker's peak memory       %d MiB\n", r.WorkerPeak>>20)
	}
	fmt.Fprintf(&b, "every peer held exactly the committed rows at the end\n\nRepeat with: %s\n", command)
	_, err := io.WriteString(w, b.String())
	return err
}
