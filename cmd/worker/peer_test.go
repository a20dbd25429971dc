package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPeerCommand starts the command on a free port, asks it for its health and
// stops it.
func TestPeerCommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	cmd := newPeerCommand()
	cmd.SetArgs([]string{"--listen", "127.0.0.1:0", "--data", t.TempDir(), "--id", "ref:test", "--fault", `{"mode":"garbage"}`})
	cmd.SetOut(stdout)
	cmd.SetErr(t.Output())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`^peer ref:test listening on (http://127\.0\.0\.1:[1-9][0-9]*)\n$`).FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("got %q, want the peer's id and address", line)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{"/api/v1/health": "ref:test", "/_ref/faults": "garbage"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, match[1]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: got %d %s (%v), want 200 with %s", path, resp.StatusCode, body, err, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
}

func TestPeerCommandRefuses(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		text string
	}{
		{"no folder", nil, `"data" not set`},
		{"an argument", []string{"--data", t.TempDir(), "x"}, "unknown command"},
		{"reachable without a key", []string{"--data", t.TempDir(), "--listen", "0.0.0.0:0"}, "set --api-key-file"},
		{"key file missing", []string{"--data", t.TempDir(), "--api-key-file", empty + "-not"}, "--api-key-file"},
		{"key file empty", []string{"--data", t.TempDir(), "--api-key-file", empty}, "write the secret into it"},
		{"bad fault", []string{"--data", t.TempDir(), "--fault", `{"mode":"tired"}`}, "unknown fault mode"},
		{"bad address", []string{"--data", t.TempDir(), "--listen", "127.0.0.1:x"}, "--listen"},
		{"bad id", []string{"--data", t.TempDir(), "--listen", "127.0.0.1:0", "--id", "a b"}, "peer id"},
		{
			"contradiction",
			[]string{"--data", t.TempDir(), "--require-enrollment", "--no-require-sig"},
			"leave out --no-require-sig",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := newPeerCommand()
			cmd.SetArgs(append([]string{}, tt.args...))
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want an error with %q", err, tt.text)
			}
		})
	}
}

// TestPeerCommandWithKey wants a key file to open the way off loopback.
func TestPeerCommandWithKey(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	cmd := newPeerCommand()
	cmd.SetArgs([]string{"--listen", "0.0.0.0:0", "--data", t.TempDir(), "--api-key-file", key})
	cmd.SetOut(stdout)
	cmd.SetErr(t.Output())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "peer ref:peer1 listening on http://") {
		t.Errorf("got %q (%v), want the peer's address", line, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
}
