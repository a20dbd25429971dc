package integration

import (
	"bufio"
	"context"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// attempts are the requests to a peer that the workers' metrics count, by class.
func (f *fleet) attempts(t *testing.T, id string) map[string]int {
	t.Helper()
	counted := map[string]int{}
	line := regexp.MustCompile(`^quorumbox_push_attempts_total\{class="([a-z_]+)",peer="([^"]+)"\} ([0-9]+)$`)
	for _, text := range f.metrics(t) {
		if m := line.FindStringSubmatch(text); m != nil && m[2] == id {
			n, err := strconv.Atoi(m[3])
			if err != nil {
				t.Fatal(err)
			}
			counted[m[1]] = n
		}
	}
	return counted
}

// seen is what was counted since, without what was not.
func (f *fleet) seen(t *testing.T, since map[string]int, id string) map[string]int {
	t.Helper()
	now := f.attempts(t, id)
	for class, n := range now {
		if now[class] = n - since[class]; now[class] == 0 {
			delete(now, class)
		}
	}
	return now
}

// metrics are the lines of the worker's metrics.
func (f *fleet) metrics(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := f.peers[0].client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var lines []string
	for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
		lines = append(lines, scanner.Text())
	}
	if res.StatusCode != http.StatusOK || len(lines) == 0 {
		t.Fatalf("metrics: %s, %d lines", res.Status, len(lines))
	}
	return lines
}
