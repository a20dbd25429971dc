package admin_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"quorumbox/internal/pgtest"
)

// The status page has what the listener itself does not, and comes under the same rules.
func TestPageIsMounted(t *testing.T) {
	t.Parallel()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
		_, _ = io.WriteString(w, "the page")
	})
	base := start(t, cfg)
	for path, want := range map[string]string{
		"/": "the page", "/page/app.js": "the page", "/api/page": "the page",
		"/livez": "ok\n", "/api/status": `"summary"`, "/river/": "<title>River</title>",
	} {
		if got := ask(t, http.MethodGet, base+path, nil); got.status != http.StatusOK || !strings.Contains(got.body, want) {
			t.Errorf("%s: got %d %.200s, want 200 with %q", path, got.status, got.body, want)
		} else if want == "the page" && got.header.Get("X-Path") != path {
			t.Errorf("%s: the page was asked for %s", path, got.header.Get("X-Path"))
		}
	}
	for name, change := range map[string]func(*http.Request){
		"another origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"another name":   func(r *http.Request) { r.Host = "evil.example" },
	} {
		if got := ask(t, http.MethodPost, base+"/api/page/peers/a/pause", change); got.status < 400 || strings.Contains(got.body, "the page") {
			t.Errorf("%s: got %d %.200s, want a refusal", name, got.status, got.body)
		}
	}
}
