package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"quorumbox/internal/admin"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/jobs"
)

func config(t *testing.T, pool *pgxpool.Pool, listen string) admin.Config {
	t.Helper()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return admin.Config{Pool: pool, Client: client, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Listen: listen}
}

// serve starts the pages on a free port and returns their base URL.
func serve(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	return start(t, config(t, pool, "127.0.0.1:0"))
}

func start(t *testing.T, cfg admin.Config) string {
	t.Helper()
	server, err := admin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := server.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	if cfg.Certificate != nil {
		return "https://" + addr.String()
	}
	return "http://" + addr.String()
}

type answer struct {
	status int
	header http.Header
	body   string
}

func ask(t *testing.T, method, url string, change func(*http.Request)) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func TestPages(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	base := serve(t, pool)
	for _, tt := range []struct {
		path, contentType, want string
		status                  int
	}{
		{"/", "text/html", admin.UIPath, http.StatusFound},
		{"/river", "text/html", admin.UIPath, http.StatusTemporaryRedirect},
		{"/river/", "text/html", "<title>River</title>", http.StatusOK},
		{"/river/jobs?state=scheduled", "text/html", "<title>River</title>", http.StatusOK},
		{"/river/api/queues", "application/json", "data", http.StatusOK},
		{"/livez", "text/plain", "ok\n", http.StatusOK},
		{"/readyz", "text/plain", "ok\n", http.StatusOK},
		{"/debug/pprof/", "text/html", "goroutine", http.StatusOK},
		{"/api/status", "application/json", `"summary": "no peers are known yet`, http.StatusOK},
		{"/none", "text/plain", "not found", http.StatusNotFound},
	} {
		got := ask(t, http.MethodGet, base+tt.path, nil)
		if got.status != tt.status || !strings.HasPrefix(got.header.Get("Content-Type"), tt.contentType) || !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: got %d %s %.300s, want %d %s with %q", tt.path, got.status, got.header.Get("Content-Type"), got.body, tt.status, tt.contentType, tt.want)
		}
		wantHeaders(t, tt.path, got.header)
	}
	var r status.Report
	if err := json.Unmarshal([]byte(ask(t, http.MethodGet, base+"/api/status", nil).body), &r); err != nil || r.At.IsZero() {
		t.Errorf("status: got %+v, %v", r, err)
	}
	if got := ask(t, http.MethodPost, base+"/api/status", nil); got.status != http.StatusMethodNotAllowed {
		t.Errorf("POST of the status: got %d, want 405", got.status)
	}
}

// wantHeaders checks what keeps a browser from being used against the pages.
func wantHeaders(t *testing.T, path string, got http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if !strings.Contains(got.Get(name), want) {
			t.Errorf("%s: got %s %q, want %q", path, name, got.Get(name), want)
		}
	}
	if hsts := got.Get("Strict-Transport-Security"); hsts != "" {
		t.Errorf("%s: got Strict-Transport-Security %q without TLS", path, hsts)
	}
}

// Security list, items 17 and 18: what a web page elsewhere must not be able to do.
func TestPagesRefuseForeignRequests(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := pool.Exec(t.Context(), `insert into river_queue (name, created_at, updated_at) values ($1, now(), now())`, jobs.FanOutQueue); err != nil {
		t.Fatal(err)
	}
	base := serve(t, pool)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"cross-origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, http.StatusForbidden},
		{"another port of this machine", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }, http.StatusForbidden},
		{"cross-site by fetch metadata", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		{"rebound name", func(r *http.Request) { r.Host = "evil.example:" + port; r.Header.Set("Origin", "http://"+r.Host) }, http.StatusMisdirectedRequest},
		{"address of another machine", func(r *http.Request) { r.Host = "192.0.2.1" }, http.StatusMisdirectedRequest},
		{"no name", func(r *http.Request) { r.Host = "." }, http.StatusMisdirectedRequest},
		{"same origin", func(r *http.Request) { r.Header.Set("Origin", base) }, http.StatusOK},
		{"localhost", func(r *http.Request) { r.Host = "localhost:" + port; r.Header.Set("Origin", "http://"+r.Host) }, http.StatusOK},
		{"IPv6", func(r *http.Request) { r.Host = "[::1]:" + port }, http.StatusOK},
		{"IPv6 without port", func(r *http.Request) { r.Host = "[::1]" }, http.StatusOK},
		{"no browser", nil, http.StatusOK},
	} {
		got := ask(t, http.MethodPut, base+"/river/api/queues/fan_out/pause", tt.change)
		if got.status != tt.want {
			t.Errorf("%s: got %d %.200s, want %d", tt.name, got.status, got.body, tt.want)
		}
		var paused bool
		err := pool.QueryRow(t.Context(), `select paused_at is not null from river_queue`).Scan(&paused)
		if err != nil || paused != (tt.want == http.StatusOK) {
			t.Errorf("%s: got paused %v, %v", tt.name, paused, err)
		}
		if _, err := pool.Exec(t.Context(), `update river_queue set paused_at = null`); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStatusWithoutDatabase(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	base := serve(t, pool)
	if _, err := pool.Exec(t.Context(), `drop table lagging`); err != nil {
		t.Fatal(err)
	}
	got := ask(t, http.MethodGet, base+"/api/status", nil)
	if got.status != http.StatusServiceUnavailable || !json.Valid([]byte(got.body)) || !strings.Contains(got.body, "error") {
		t.Errorf("got %d %s, want 503 with an error as JSON", got.status, got.body)
	}
	if got := ask(t, http.MethodGet, base+"/livez", nil); got.status != http.StatusOK {
		t.Errorf("livez: got %d, want 200: the process lives", got.status)
	}
}

func TestListenOnATakenPort(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	first, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	server, err := admin.New(config(t, pool, first.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context()); !errors.Is(err, admin.ErrAddressInUse) {
		t.Errorf("got %v, want ErrAddressInUse", err)
	}
}

// Args hold ids only, and are hidden all the same until somebody asks for them.
func TestJobListHidesArgs(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	cfg := config(t, pool, "127.0.0.1:0")
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := cfg.Client.InsertTx(t.Context(), tx, jobs.FanOutArgs{FanOut: 4711}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	base := serve(t, pool)
	if got := ask(t, http.MethodGet, base+"/river/api/features", nil); !strings.Contains(got.body, `"job_list_hide_args_by_default":true`) {
		t.Errorf("got features %s, want args hidden", got.body)
	}
	if got := ask(t, http.MethodGet, base+"/river/api/jobs?state=available", nil); !strings.Contains(got.body, `"fan_out"`) {
		t.Errorf("got jobs %s, want the fan-out", got.body)
	}
}

// Security list, item 19: a client that sends its headers slowly, or too many, is let go.
func TestSlowAndLargeRequests(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	base := serve(t, pool)
	got := ask(t, http.MethodGet, base+"/livez", func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 32<<10)) })
	if got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("32 KiB of headers: got %d, want 431", got.status)
	}

	start := time.Now()
	var slow []net.Conn
	for range 20 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(start.Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	if got := ask(t, http.MethodGet, base+"/livez", nil); got.status != http.StatusOK {
		t.Errorf("beside slow clients: got %d, want 200", got.status)
	}
	for _, conn := range slow {
		text, err := io.ReadAll(conn)
		if took := time.Since(start); err != nil || bytes.HasPrefix(text, []byte("HTTP/1.1 200")) || took > 10*time.Second {
			t.Errorf("slow headers: got %q, %v after %s, want the connection closed after about 5s", text, err, took)
		}
	}
}
