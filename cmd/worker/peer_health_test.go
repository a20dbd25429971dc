package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"quorumbox/internal/refpeer"
)

// A peer that asks for a key tells its health without one.
func TestPeerHealth(t *testing.T) {
	t.Parallel()
	p, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: t.TempDir(), APIKey: "a key"})
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
	addr := strings.TrimPrefix(server.URL, "http://")
	_, port, _ := strings.Cut(addr, ":")
	for _, listen := range []string{addr, "0.0.0.0:" + port, ":" + port, "[::]:" + port} {
		var out, stderr bytes.Buffer
		if code := run(t.Context(), []string{"peer", "health", "--listen", listen}, nil, &out, &stderr); code != exitOK || out.String() != "ok\n" {
			t.Errorf("%s: exit code %d, %q, %q, want 0 and ok", listen, code, out.String(), stderr.String())
		}
	}
}

func TestPeerHealthOfTheIll(t *testing.T) {
	t.Parallel()
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/health" {
			t.Errorf("%s was asked for", r.URL.Path)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(ill.Close)
	elsewhere := httptest.NewServer(http.RedirectHandler("/ok", http.StatusFound))
	t.Cleanup(elsewhere.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, tt := range []struct {
		name, listen string
		code         int
		text         string
	}{
		{"ill", ill.URL, exitFailed, "503"},
		{"a redirect", elsewhere.URL, exitFailed, "302"},
		{"nobody there", gone.URL, exitFailed, "connection refused"},
		{"no port", "127.0.0.1", exitUsage, "--listen"},
		{"any port", "127.0.0.1:0", exitUsage, "--listen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out, stderr bytes.Buffer
			args := []string{"peer", "health", "--listen", strings.TrimPrefix(tt.listen, "http://")}
			if code := run(t.Context(), args, nil, &out, &stderr); code != tt.code || !strings.Contains(stderr.String(), tt.text) {
				t.Errorf("exit code %d and %q, want %d and %q", code, stderr.String(), tt.code, tt.text)
			}
		})
	}
}
