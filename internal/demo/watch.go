package demo

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"quorumbox/internal/importer"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

const (
	// liveEvery and linesEvery are how often the state is shown.
	liveEvery  = 200 * time.Millisecond
	linesEvery = time.Second

	// pagesTimeout is how long the demo looks for the status page.
	pagesTimeout = 2 * time.Second

	barWidth = 24
)

// watch shows the state until ctx ends.
func (p *play) watch(ctx context.Context) {
	watchStatus(ctx, p.pool, p.cfg.View, func(report status.Report) {
		imported, _ := p.imports.get()
		if p.cfg.View == Live {
			p.show.panel(panel(p.source.size, imported, report, p.alive()))
		} else {
			p.show.event("", "%s", line(p.source.size, imported, report, p.alive()))
		}
	})
}

// watchStatus calls show with how replication stands, as often as the view wants, until ctx ends.
func watchStatus(ctx context.Context, db status.DB, view View, show func(status.Report)) {
	every := linesEvery
	if view == Live {
		every = liveEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		report, err := status.Read(ctx, db)
		if err != nil {
			continue // the next one may; what is wrong is found by those who need the database
		}
		show(report)
	}
}

// alive says which peers have a process.
func (p *play) alive() map[string]bool {
	alive := make(map[string]bool, len(p.peers))
	for _, peer := range p.peers {
		alive[peer.id] = peer.pid() != 0
	}
	return alive
}

// panel is the state in a few lines.
func panel(size int, imported importer.Summary, r status.Report, alive map[string]bool) []string {
	full := min(int(imported.Lines)*barWidth/max(size, 1), barWidth)
	lines := []string{
		fmt.Sprintf("import   %s%s %s of %s", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), count(imported.Lines), count(size)),
		"quorum   " + verdicts(imported.Verdicts, r),
	}
	for _, p := range r.Peers {
		process := "up  "
		if !alive[p.ID] {
			process = "DEAD"
		}
		lines = append(lines, fmt.Sprintf("%-8s %s  %s", p.ID, process, lag(p)))
	}
	return lines
}

// line is the state in one line.
func line(size int, imported importer.Summary, r status.Report, alive map[string]bool) string {
	parts := []string{fmt.Sprintf("imported %s of %s", count(imported.Lines), count(size)), verdicts(imported.Verdicts, r)}
	for _, p := range r.Peers {
		text := p.ID + " " + lag(p)
		if !alive[p.ID] {
			text = p.ID + " dead, " + lag(p)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " | ")
}

func verdicts(v *importer.Verdicts, r status.Report) string {
	if v == nil {
		return "no verdict yet"
	}
	return fmt.Sprintf("met %s, not met %s, undecided %s", count(v.Met+v.Pruned), count(sum(v.NotMet)), count(r.Undecided.Entries+r.Undispatched.Entries))
}

func sum(notMet map[outbox.Reason]int64) int64 {
	var n int64
	for _, k := range notMet {
		n += k
	}
	return n
}

// lag is where a peer stands.
func lag(p status.Peer) string {
	if p.InStep {
		return "in step"
	}
	text := fmt.Sprintf("misses %s for %s", count(p.EntriesLagging), seconds(p.OldestAge.Duration()))
	switch {
	case p.Pushing:
		text += ", pushing"
	case p.LastError != nil:
		when := "now"
		if wait := p.NextTry.Duration(); wait >= 50*time.Millisecond {
			when = "in " + seconds(wait)
		}
		text += fmt.Sprintf(", next try %s (%s)", when, p.LastError.Class)
	}
	return text
}

// findPages notes the address of the status page if the worker serves it.
func (s *stage) findPages(ctx context.Context, listen string) {
	if listen == "" {
		return
	}
	pages := "http://" + listen + "/"
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // not through a proxy
	err := poll(ctx, pagesTimeout, "the status page", func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, pages, http.NoBody)
		if err != nil {
			return false, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
	if err != nil {
		if ctx.Err() == nil {
			s.show.event("pages", "no status page at %s", pages)
		}
		return
	}
	s.pages = pages
	s.show.event("pages", "status page: %s (the jobs: %sriver/)", pages, pages)
}
