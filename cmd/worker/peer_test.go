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
	attestation := filepath.Join(t.TempDir(), "peers.json")
	if err := os.WriteFile(attestation, []byte(`{"ai:leader":{"allowed_namespaces":["**"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.SetArgs([]string{
		"--listen", "127.0.0.1:0", "--data", t.TempDir(), "--id", "ref:test", "--fault", `{"mode":"garbage"}`,
		"--attestation", attestation, "--trust-bundle", t.TempDir(), "--trust-domain", "fleet.example", "--backend", "postgres",
		"--embedding-dim", "384", "--max-collection", "10", "--quota-per-day", "1", "--quota-bytes-per-day", "2",
		"--quota-links-per-day", "3", "--admin-agent", "ai:a,ai:b", "--trust-body-agent-id",
	})
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
	for path, want := range map[string]string{"/api/v1/health": "ref:test", "/_ref/faults": "garbage", "/_ref/state": `"links":[]`} {
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
		{
			"bundle without signatures",
			[]string{"--data", t.TempDir(), "--trust-bundle", t.TempDir(), "--no-require-sig"},
			"leave out --no-require-sig",
		},
		{"domain without a bundle", []string{"--data", t.TempDir(), "--trust-domain", "x"}, "needs --trust-bundle"},
		{"bundle missing", []string{"--data", t.TempDir(), "--listen", "127.0.0.1:0", "--trust-bundle", empty + "-not"}, "trust bundle"},
		{"attestation missing", []string{"--data", t.TempDir(), "--attestation", empty + "-not"}, "--attestation"},
		{"attestation empty", []string{"--data", t.TempDir(), "--attestation", empty}, "parse attestation"},
		{
			"attestation and trust",
			[]string{"--data", t.TempDir(), "--attestation", empty, "--sync-trust-peer"},
			"counts only without --attestation",
		},
		{"unknown backend", []string{"--data", t.TempDir(), "--backend", "mysql"}, "use sqlite or postgres"},
		{"cap of none", []string{"--data", t.TempDir(), "--max-collection", "0"}, "must be 1 or more"},
		{"negative dimension", []string{"--data", t.TempDir(), "--embedding-dim", "-1"}, "--embedding-dim"},
		{"negative quota", []string{"--data", t.TempDir(), "--quota-per-day", "-1"}, "--quota-per-day"},
		{"negative quota of bytes", []string{"--data", t.TempDir(), "--quota-bytes-per-day", "-1"}, "--quota-bytes-per-day"},
		{"negative quota of links", []string{"--data", t.TempDir(), "--quota-links-per-day", "-1"}, "--quota-links-per-day"},
		{"bad admin", []string{"--data", t.TempDir(), "--listen", "127.0.0.1:0", "--admin-agent", "a b"}, "admin agent"},
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
