// Package page is the operator's status page: where each peer stands in each lane, what was decided in the last minutes, who works on what, and what is to
// be done about it, live and without anything from elsewhere. docs/page.md says what each part means, and has the API.
//
// It has no login of its own: whoever mounts it asks for one.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
)

// securityPolicy lets the page use its own files and nothing else, and nobody put it into a frame.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed static
var files embed.FS

// Config is what the page needs. All fields must be set.
type Config struct {
	Pool   *pgxpool.Pool
	Client *river.Client[pgx.Tx] // need not be started
	Logger *slog.Logger
}

// New returns the page, to be mounted at "/". It answers GET of / and of its files under /page/, and the API under /api/page; everything else is 404. Requests that
// change something are refused when they come from another origin. Nothing is read before somebody asks. It is safe for concurrent use and starts no goroutine that outlives
// a request.
func New(cfg Config) http.Handler {
	p := &page{cfg: cfg, reader: newReader(cfg)}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", file("index.html"))
	for _, name := range fileNames() {
		if name != "index.html" {
			mux.Handle("GET /page/"+name, file(name))
		}
	}
	mux.HandleFunc("GET /api/page", p.get)
	mux.HandleFunc("POST /api/page/peers/{peer}/pause", p.pause)
	mux.HandleFunc("POST /api/page/peers/{peer}/resume", p.resume)
	mux.HandleFunc("POST /api/page/peers/{peer}/resync", p.resync)
	mux.HandleFunc("POST /api/page/refusals/retry", p.retryRefusals)
	mux.HandleFunc("POST /api/page/fan-out/resume", p.resumeFanOuts)
	return headers(http.NewCrossOriginProtection().Handler(mux))
}

type page struct {
	cfg    Config
	reader *reader
}

// headers says how what the page serves may be used.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", securityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// fileNames are the files of the page. They are part of the program, so that an error is one of the programmer.
func fileNames() []string {
	entries, err := files.ReadDir("static")
	if err != nil {
		panic(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// file serves a file of the page. Browsers keep it and ask whether it is still the same, so that a new release is seen at once.
func file(name string) http.Handler {
	text, err := files.ReadFile("static/" + name)
	if err != nil {
		panic(err)
	}
	types := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", types[path.Ext(name)])
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
	})
}
