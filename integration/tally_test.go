package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"quorumbox/internal/fault"
)

// result is what became of a point.
type result struct {
	kills      int
	entries    int64 // writes committed meanwhile
	took       distribution
	violations int
}

// tally is the results by point. Safe for concurrent use.
type tally struct {
	begin time.Time

	mu      sync.Mutex
	results map[fault.Point]result
}

func (l *tally) add(p fault.Point, r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.results == nil {
		l.results = map[fault.Point]result{}
	}
	sum := l.results[p]
	sum.kills += r.kills
	sum.entries += r.entries
	sum.violations += r.violations
	sum.took = slices.Sorted(slices.Values(append(slices.Clone(sum.took), r.took...)))
	l.results[p] = sum
}

// timeIsUp reports whether the campaign has taken as long as it may.
func (l *tally) timeIsUp() bool { return *timeFlag > 0 && time.Since(l.begin) > *timeFlag }

func (l *tally) of(p fault.Point) result {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.results[p]
}

// table shows all points. Where several share a fleet, the last one has the takeover times of all of them.
func (l *tally) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "POINT\tKILLS\tWRITES\tTAKEOVERS\tP50\tP95\tP99\tMAX\tVIOLATIONS")
	row := func(name string, r result) {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%d\n", name, r.kills, r.entries, len(r.took),
			r.took.at(.5), r.took.at(.95), r.took.at(.99), r.took.at(1), r.violations)
	}
	for _, p := range fault.Points() {
		row(string(p), l.of(p))
	}
	var sum tally
	for r := range maps.Values(l.results) {
		sum.add("", r)
	}
	row("all", sum.of(""))
	_ = w.Flush() // into memory
	return b.String()
}
