package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"quorumbox/internal/pgtest"
)

// startRun runs the command run until the returned function is called, which gives the exit code. It returns once a line of the log
// matches, with the match.
func startRun(t *testing.T, url, yaml, pattern string) (match []string, stop func() int) {
	t.Helper()
	return startCommand(t, url, yaml, pattern, "run")
}

// startCommand is startRun for any command that runs until it is stopped.
func startCommand(t *testing.T, url, yaml, pattern string, command ...string) (match []string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	log, stderr := io.Pipe()
	code := make(chan int, 1)
	args := append([]string{"--config", configFile(t, url, yaml)}, command...)
	go func() {
		code <- run(ctx, args, strings.NewReader(""), io.Discard, stderr)
		_ = stderr.Close()
	}()
	lines := bufio.NewScanner(log)
	var seen []string
	for match == nil && lines.Scan() {
		seen = append(seen, lines.Text())
		match = regexp.MustCompile(pattern).FindStringSubmatch(lines.Text())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	stop = func() int {
		cancel()
		<-drained
		return <-code
	}
	if match == nil {
		t.Errorf("no line of the log matches %q: exit code %d\n%s", pattern, stop(), strings.Join(seen, "\n"))
		t.FailNow()
	}
	return match, stop
}

// A worker serves the pages; a second one on the machine says that it cannot, and works.
func TestRunCommandServesPages(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	const settings = "sender_id: host:test\nadmin: {listen: \"%s\"}"
	match, stop := startRun(t, url, fmt.Sprintf(settings, "127.0.0.1:0"), `"msg":"pages served","url":"http://(127\.0\.0\.1:\d+)/river/"`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+match[1]+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", resp.StatusCode)
	}

	_, stopSecond := startRun(t, url, fmt.Sprintf(settings, match[1]), `"level":"WARN","msg":"pages not served: choose another address with admin.listen`)
	if code := stopSecond(); code != exitOK {
		t.Errorf("second worker: got exit code %d, want 0", code)
	}
	if code := stop(); code != exitOK {
		t.Errorf("got exit code %d, want 0", code)
	}
}
