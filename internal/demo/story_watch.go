package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"quorumbox/internal/importer"
	"quorumbox/internal/status"
)

// countTimeout is how long a peer may take to say how many memories it has.
const countTimeout = time.Second

// watch shows the state until ctx ends.
func (s *story) watch(ctx context.Context) {
	watchStatus(ctx, s.Pool, s.View, func(report status.Report) {
		has := s.counts(ctx)
		if ctx.Err() != nil {
			return
		}
		imported, _ := s.imports.get()
		if s.View == Live {
			s.show.panel(storyPanel(s.source.size, imported, report, has))
		} else {
			s.show.event("", "%s", storyLine(s.source.size, imported, report, has))
		}
	})
}

// counts is how many memories each peer has, by id; those that do not say so are left out.
func (s *story) counts(ctx context.Context) map[string]int64 {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	var mu sync.Mutex // guards has
	has := map[string]int64{}
	var asking sync.WaitGroup
	for _, p := range s.Peers {
		asking.Go(func() {
			body, err := s.get(ctx, p, "/api/v1/stats")
			if err != nil {
				return
			}
			defer body.Close()
			var stats struct {
				Total *int64 `json:"total_memories"`
			}
			if json.NewDecoder(body).Decode(&stats) == nil && stats.Total != nil {
				mu.Lock()
				defer mu.Unlock()
				has[p.ID] = *stats.Total
			}
		})
	}
	asking.Wait()
	return has
}

// storyPanel is the state in a few lines.
func storyPanel(size int, imported importer.Summary, r status.Report, has map[string]int64) []string {
	full := min(int(imported.Lines)*barWidth/max(size, 1), barWidth)
	lines := []string{
		fmt.Sprintf("written  %s%s %s of %s", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), count(imported.Lines), count(size)),
		"quorum   " + verdicts(imported.Verdicts, r),
	}
	for _, p := range r.Peers {
		lines = append(lines, fmt.Sprintf("%-8s %-18s %s", p.ID, holds(has, p.ID), lag(p)))
	}
	return lines
}

// storyLine is the state in one line.
func storyLine(size int, imported importer.Summary, r status.Report, has map[string]int64) string {
	parts := []string{fmt.Sprintf("written %s of %s", count(imported.Lines), count(size)), verdicts(imported.Verdicts, r)}
	for _, p := range r.Peers {
		parts = append(parts, fmt.Sprintf("%s %s, %s", p.ID, holds(has, p.ID), lag(p)))
	}
	return strings.Join(parts, " | ")
}

// holds is how many memories a peer has.
func holds(has map[string]int64, id string) string {
	if n, ok := has[id]; ok {
		return count(n) + " memories"
	}
	return "no answer"
}
