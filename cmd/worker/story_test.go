package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
)

// A story reaches every peer of a fleet that runs, twice, and says which peer it does not reach.
func TestStory(t *testing.T) {
	url := pgtest.URL(t)
	dir := t.TempDir()
	key := rand.Text()
	keyFile := filepath.Join(dir, "api-key")
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	var servers []*httptest.Server
	var peers strings.Builder
	for _, id := range []string{"peer-1", "peer-2", "peer-3"} {
		p, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: filepath.Join(dir, id), ID: "ref:" + id, APIKey: key})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		server := httptest.NewServer(p.Handler())
		t.Cleanup(server.Close)
		servers = append(servers, server)
		peers.WriteString("- {id: " + id + ", url: " + server.URL + ", allow: [127.0.0.0/8]}\n")
	}
	for name, value := range map[string]string{
		"DATABASE_URL": url, "QUORUMBOX_PEERS": peers.String(), "QUORUMBOX_API_KEY_FILE": keyFile, "QUORUMBOX_ADMIN__LISTEN": "",
		"QUORUMBOX_SENDER_ID": "host:test", "QUORUMBOX_LOG__LEVEL": "warn", "QUORUMBOX_JOBS__SOFT_STOP": "1s",
	} {
		t.Setenv(name, value)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var log bytes.Buffer // of the worker; read when it has ended
	go func() { ended <- run(ctx, []string{"run"}, nil, &log, &log) }()
	defer func() {
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("the worker ended with %d:\n%s", code, &log)
		}
	}()

	tell := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(t.Context(), append([]string{"story", "--pace", "0s"}, args...), nil, &out, &out)
		return code, out.String()
	}
	for range 2 {
		if code, text := tell("--wait", "1m"); code != exitOK || !strings.Contains(text, "All 3 peers equal the store, field by field.") {
			t.Fatalf("exit code %d, want 0 and equal peers:\n%s", code, text)
		}
	}
	servers[1].Close()
	code, text := tell("--wait", "100ms")
	for _, want := range []string{"2 of 3 peers equal the store", "peer-2 cannot be read", "not every peer has all of it"} {
		if code != exitFailed || !strings.Contains(text, want) {
			t.Errorf("exit code %d, want 1 and %q:\n%s", code, want, text)
		}
	}
}

func TestStoryRefuses(t *testing.T) {
	url := pgtest.URL(t)
	t.Setenv("DATABASE_URL", url)
	t.Setenv("QUORUMBOX_SENDER_ID", "host:test")
	for _, tt := range []struct{ name, peers, args, want string }{
		{"no peers", "[]", "", "set peers"},
		{"a negative pace", `[{id: p, url: "http://127.0.0.1:1", allow: [127.0.0.0/8]}]`, "--pace=-1s", "want 0 (as fast as it goes) to 1h"},
		{"no wait", `[{id: p, url: "http://127.0.0.1:1", allow: [127.0.0.0/8]}]`, "--wait=0s", "want more than 0"},
		{"no file", `[{id: p, url: "http://127.0.0.1:1", allow: [127.0.0.0/8]}]`, "--file=/does/not/exist", "open the memories"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("QUORUMBOX_PEERS", tt.peers)
			var out bytes.Buffer
			if code := run(t.Context(), strings.Fields("story "+tt.args), nil, &out, &out); code != exitFailed || !strings.Contains(out.String(), tt.want) {
				t.Errorf("exit code %d, %q, want 1 and %q", code, out.String(), tt.want)
			}
		})
	}
}
