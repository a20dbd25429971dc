package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestProfiles(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(profiles())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond // shorter than a profile
	server.Start()
	defer server.Close()
	for _, tt := range []struct {
		method, path, contains string
		code                   int
	}{
		{http.MethodGet, "", "goroutine", http.StatusOK},
		{http.MethodGet, "goroutine?debug=1", "goroutine profile", http.StatusOK},
		{http.MethodGet, "heap", "\x1f\x8b", http.StatusOK},
		{http.MethodGet, "profile?seconds=1", "\x1f\x8b", http.StatusOK}, // gzip
		{http.MethodGet, "trace?seconds=0.3", "go 1.", http.StatusOK},
		{http.MethodGet, "cmdline", "admin", http.StatusOK},
		{http.MethodGet, "symbol", "num_symbols", http.StatusOK},
		{http.MethodPost, "symbol", "num_symbols", http.StatusOK},
		{http.MethodPost, "profile?seconds=1", "", http.StatusMethodNotAllowed},
		{http.MethodGet, "none", "Unknown profile", http.StatusNotFound},
		{http.MethodGet, "profile?seconds=121", "want 0 to 120", http.StatusBadRequest},
		{http.MethodGet, "heap?seconds=-1", "want 0 to 120", http.StatusBadRequest},
		{http.MethodGet, "trace?seconds=NaN", "want 0 to 120", http.StatusBadRequest},
		{http.MethodGet, "trace?seconds=1h", "want 0 to 120", http.StatusBadRequest},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, server.URL+debugPath+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tt.code || !strings.Contains(string(body), tt.contains) {
			t.Errorf("%s %s: got %d %.100q, %v, want %d with %q", tt.method, tt.path, resp.StatusCode, body, err, tt.code, tt.contains)
		}
	}
}
