package admin_test

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/admin"
	"quorumbox/internal/metrics"
	"quorumbox/internal/pgtest"
)

const (
	token        = "0123456789abcdef-canary"
	metricsToken = "fedcba9876543210-canary"
	password     = "correct horse-canary"
)

// secretFile writes a secret by renaming, as one should.
func secretFile(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path+".next", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+".next", mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// everyLogin is a login with all that there is.
func everyLogin(t *testing.T) admin.Login {
	t.Helper()
	dir := t.TempDir()
	return admin.Login{
		TokenFile: secretFile(t, dir+"/token", token+"\n", 0o600), MetricsTokenFile: secretFile(t, dir+"/metrics", metricsToken, 0o600),
		Username: "operator", PasswordFile: secretFile(t, dir+"/password", password, 0o400),
	}
}

// logs is a log that a test may read while it is written.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(text)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func bearer(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+text) }
}

func basic(name, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

func header(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", text) }
}

// Security list, item 16: the start matrix.
func TestStart(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	dir := t.TempDir()
	good := func(name, text string) string { return secretFile(t, filepath.Join(dir, name), text, 0o600) }
	tokenFile, passwordFile := good("token", token), good("password", password)
	withToken := admin.Login{TokenFile: tokenFile}
	withBasic := admin.Login{Username: "operator", PasswordFile: passwordFile}
	file := func(path string) admin.Login { return admin.Login{TokenFile: path} }
	openDir := filepath.Join(dir, "open")
	if err := os.Mkdir(openDir, 0o700); err != nil {
		t.Fatal(err)
	}
	inOpenDir := secretFile(t, filepath.Join(openDir, "token"), token, 0o600)
	if err := os.Chmod(openDir, 0o777); err != nil { //nolint:gosec // G302: that is what is refused
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(tokenFile, link); err != nil {
		t.Fatal(err)
	}
	const loopback, wildcard, noLogin = "127.0.0.1:9080", "0.0.0.0:9080", "no login: set admin.token_file"
	for _, tt := range []struct {
		name, listen string
		login        admin.Login
		want         string // "": starts
	}{
		{"loopback", loopback, admin.Login{}, ""},
		{"another loopback", "127.8.7.6:9080", admin.Login{}, ""},
		{"localhost", "localhost:9080", admin.Login{}, ""},
		{"IPv6 loopback", "[::1]:9080", admin.Login{}, ""},
		{"loopback, token", loopback, withToken, ""},
		{"loopback, basic", loopback, withBasic, ""},
		{"any", ":9080", admin.Login{}, noLogin},
		{"any IPv4", wildcard, admin.Login{}, noLogin},
		{"any IPv6", "[::]:9080", admin.Login{}, noLogin},
		{"any, token", ":9080", withToken, ""},
		{"any IPv4, token", wildcard, withToken, ""},
		{"any IPv6, basic", "[::]:9080", withBasic, ""},
		{"any, all", wildcard, everyLogin(t), ""},
		{"address", "192.0.2.1:9080", admin.Login{}, noLogin},
		{"address, token", "192.0.2.1:9080", withToken, ""},
		{"address, basic", "192.0.2.1:9080", withBasic, ""},
		{"zone", "[fe80::1%lo]:9080", admin.Login{}, noLogin},
		{"name", "example.com:9080", admin.Login{}, noLogin},
		{"name like localhost", "localhost.evil:80", admin.Login{}, noLogin},
		{"mapped address", "[::ffff:8.8.8.8]:1", admin.Login{}, noLogin},
		{"no port", "127.0.0.1", withToken, "want host:port"},
		{"nothing", "", withToken, "want host:port"},
		{"metrics token alone", wildcard, admin.Login{MetricsTokenFile: tokenFile}, noLogin},
		{"metrics token alone on loopback", loopback, admin.Login{MetricsTokenFile: tokenFile}, "there is no login"},
		{"password alone on loopback", loopback, admin.Login{PasswordFile: passwordFile}, "there is no login"},
		{"name without password", wildcard, admin.Login{Username: "operator"}, "admin.password_file is not"},
		{"absent", wildcard, file(dir + "/absent"), "no such file"},
		{"readable by others", wildcard, file(secretFile(t, dir+"/r", token, 0o644)), "chmod 600"},
		{"empty", wildcard, file(good("empty", "")), "is empty"},
		{"two lines", wildcard, file(good("lines", token+"\n"+token)), "more than one line"},
		{"short token", wildcard, file(good("short", "canary-45678901")), "fewer than 16 characters"},
		{"token with a blank", wildcard, file(good("blank", "canary canary canary")), "a bearer token cannot have"},
		{"short password", wildcard, admin.Login{Username: "u", PasswordFile: good("pw", "canary")}, "fewer than 8 characters"},
		{"link", wildcard, file(link), ""},
		{"folder open to others", wildcard, file(inOpenDir), "chmod go-w"},
		{"a folder", wildcard, file(dir), "no regular file"},
		{"bad metrics token", wildcard, admin.Login{TokenFile: tokenFile, MetricsTokenFile: dir + "/absent"}, "admin.metrics_token_file"},
		{"one token for all", wildcard, admin.Login{TokenFile: tokenFile, MetricsTokenFile: good("same", token)}, "hold the same token"},
	} {
		cfg := config(t, pool, tt.listen)
		cfg.Login = tt.login
		_, err := admin.New(cfg)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error shows the secret: %v", tt.name, err)
		}
	}
	cfg := config(t, pool, wildcard)
	cfg.Login = admin.Login{TokenFile: dir + "/absent", Username: "u", PasswordFile: dir + "/gone", MetricsTokenFile: dir + "/lost"}
	if _, err := admin.New(cfg); err == nil || strings.Count(err.Error(), "no such file") != 3 {
		t.Errorf("three bad files: got %v, want all of them", err)
	}
}

// protectedPaths are the pages of a worker, and what is none.
func protectedPaths() []string {
	return []string{
		"/", "/river", "/river/", "/river/jobs", "/river/api/jobs?state=available", "/river/api/queues", "/river/api/features", "/river/assets/x.js",
		"/metrics", "/metrics/", "/api/status", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=0",
		"/none", "/api/page/x", "/livez/", "/readyz/x", "//livez", "/livez/../metrics", "/river/../livez",
	}
}

// Security list, item 17.
func TestPagesNeedALogin(t *testing.T) {
	t.Parallel()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Login, cfg.Registry = everyLogin(t), metrics.New().Registry()
	cfg.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the page")) })
	pool := cfg.Pool
	base := start(t, cfg)
	before := pool.Stat().AcquireCount()
	for _, path := range protectedPaths() {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			got := ask(t, method, base+path, nil)
			if got.status != http.StatusUnauthorized {
				t.Errorf("%s %s: got %d, want 401", method, path, got.status)
			}
			challenges := []string{`Bearer realm="quorumbox"`, `Basic realm="quorumbox", charset="UTF-8"`}
			if d := cmp.Diff(challenges, got.header.Values("WWW-Authenticate")); d != "" {
				t.Errorf("%s %s: challenges (-want +got):\n%s", method, path, d)
			}
			if method != http.MethodHead && got.body != "this page needs a login\n" {
				t.Errorf("%s %s: got %.200q", method, path, got.body)
			}
			wantHeaders(t, path, got.header)
		}
	}
	if after := pool.Stat().AcquireCount(); after != before {
		t.Errorf("got %d uses of the database for requests without a login, want none", after-before)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if got := ask(t, http.MethodGet, base+path, nil); got.status != http.StatusOK || got.body != "ok\n" {
			t.Errorf("%s: got %d %q, want 200 without a login", path, got.status, got.body)
		}
		if got := ask(t, http.MethodPost, base+path, nil); got.status != http.StatusUnauthorized {
			t.Errorf("POST %s: got %d, want 401", path, got.status)
		}
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Login, cfg.Registry = everyLogin(t), metrics.New().Registry()
	cfg.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the page")) })
	base := start(t, cfg)
	const all, onlyMetrics, nothing = "all", "metrics", "nothing"
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		opens  string
	}{
		{"token", bearer(token), all},
		{"lower case scheme", header("bearer " + token), all},
		{"more blanks", header("Bearer   " + token), all},
		{"basic", basic("operator", password), all},
		{"metrics token", bearer(metricsToken), onlyMetrics},
		{"foreign name", func(r *http.Request) { bearer(token)(r); r.Host = "worker.example" }, all},
		{"another token", bearer(strings.Repeat("x", len(token))), nothing},
		{"a shorter token", bearer(token[:len(token)-1]), nothing},
		{"a longer token", bearer(token + "x"), nothing},
		{"one character", bearer("x"), nothing},
		{"8 KiB", bearer(strings.Repeat("x", 8<<10)), nothing},
		{"no token", header("Bearer"), nothing},
		{"empty token", header("Bearer "), nothing},
		{"token and more", bearer(token + " " + token), nothing},
		{"both tokens", bearer(token + "," + metricsToken), nothing},
		{"token without scheme", header(token), nothing},
		{"another scheme", header("Digest " + token), nothing},
		{"two headers", func(r *http.Request) { bearer(token)(r); r.Header.Add("Authorization", "Bearer "+token) }, nothing},
		{"empty header", header(""), nothing},
		{"password as token", bearer("correct"), nothing},
		{"token as password", basic("operator", token), nothing},
		{"metrics token as password", basic("operator", metricsToken), nothing},
		{"another name", basic("root", password), nothing},
		{"upper case name", basic("OPERATOR", password), nothing},
		{"no name", basic("", password), nothing},
		{"no password", basic("operator", ""), nothing},
		{"shorter password", basic("operator", password[1:]), nothing},
		{"longer password", basic("operator", password+"x"), nothing},
		{"neither", basic("", ""), nothing},
		{"no base64", header("Basic %%%"), nothing},
		{"no colon", header("Basic " + base64.StdEncoding.EncodeToString([]byte("operator"))), nothing},
		{"token in the query", func(r *http.Request) { r.URL.RawQuery = "access_token=" + token }, nothing},
		{"token in a cookie", func(r *http.Request) { r.Header.Set("Cookie", "token="+token) }, nothing},
	} {
		for path, opened := range map[string]bool{
			"/metrics": tt.opens != nothing, "/api/status": tt.opens == all, "/river/": tt.opens == all, "/debug/pprof/": tt.opens == all, "/": tt.opens == all,
			"/api/page/x": tt.opens == all,
		} {
			want := http.StatusUnauthorized
			if opened {
				want = http.StatusOK
			}
			if got := ask(t, http.MethodGet, base+path, tt.change); got.status != want {
				t.Errorf("%s: %s: got %d, want %d", tt.name, path, got.status, want)
			}
		}
	}
	if got := ask(t, http.MethodGet, base+"/any", bearer(token)); got.body != "the page" {
		t.Errorf("got %q, want the page", got.body)
	}
	got := ask(t, http.MethodGet, base+"/", bearer("wrong")).header.Get("WWW-Authenticate")
	if want := `Bearer realm="quorumbox", error="invalid_token"`; got != want {
		t.Errorf("got the challenge %s, want %s", got, want)
	}
}

// Each way to log in says only what it takes.
func TestChallenges(t *testing.T) {
	t.Parallel()
	every := everyLogin(t)
	pool := pgtest.New(t)
	for name, tt := range map[string]struct {
		login admin.Login
		want  []string
		wrong func(*http.Request)
	}{
		"token": {admin.Login{TokenFile: every.TokenFile}, []string{`Bearer realm="quorumbox"`}, basic("operator", password)},
		"basic": {admin.Login{Username: every.Username, PasswordFile: every.PasswordFile}, []string{`Basic realm="quorumbox", charset="UTF-8"`}, bearer(token)},
	} {
		cfg := config(t, pool, "127.0.0.1:0")
		cfg.Login = tt.login
		base := start(t, cfg)
		for _, change := range []func(*http.Request){nil, tt.wrong} {
			got := ask(t, http.MethodGet, base+"/api/status", change)
			if d := cmp.Diff(tt.want, cutError(got.header.Values("WWW-Authenticate"))); d != "" || got.status != http.StatusUnauthorized {
				t.Errorf("%s: got %d (-want +got):\n%s", name, got.status, d)
			}
		}
	}
}

func cutError(list []string) (cut []string) {
	for _, text := range list {
		text, _, _ = strings.Cut(text, ", error=")
		cut = append(cut, text)
	}
	return cut
}

// A secret is replaced without a restart, and a file that cannot be used leaves the last one valid.
func TestRotation(t *testing.T) {
	t.Parallel()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Login, cfg.Registry = everyLogin(t), metrics.New().Registry()
	log := &logs{}
	cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
	base := start(t, cfg)
	opens := func(when string, change func(*http.Request), path string, want int) {
		t.Helper()
		if got := ask(t, http.MethodGet, base+path, change); got.status != want {
			t.Errorf("%s: got %d, want %d", when, got.status, want)
		}
	}
	for _, secret := range []struct {
		setting, path, page, old, next string
		use                            func(string) func(*http.Request)
	}{
		{"admin.token_file", cfg.Login.TokenFile, "/api/status", token, "the-next-token-canary", bearer},
		{"admin.metrics_token_file", cfg.Login.MetricsTokenFile, "/metrics", metricsToken, "the-next-metrics-canary", bearer},
		{
			"admin.password_file", cfg.Login.PasswordFile, "/api/status", password, "the next password-canary",
			func(text string) func(*http.Request) { return basic("operator", text) },
		},
	} {
		opens("before", secret.use(secret.old), secret.page, http.StatusOK)
		secretFile(t, secret.path, secret.next, 0o600)
		opens("the new one", secret.use(secret.next), secret.page, http.StatusOK)
		opens("the old one", secret.use(secret.old), secret.page, http.StatusUnauthorized)
		secretFile(t, secret.path, "short", 0o600)
		opens("a bad file", secret.use(secret.next), secret.page, http.StatusOK)
		opens("what is in the bad file", secret.use("short"), secret.page, http.StatusUnauthorized)
		if err := os.Remove(secret.path); err != nil {
			t.Fatal(err)
		}
		opens("no file", secret.use(secret.next), secret.page, http.StatusOK)
		if got := log.count(`"setting":"` + secret.setting + `"`); got != 2 {
			t.Errorf("%s: got %d warnings, want one for each change that cannot be used", secret.setting, got)
		}
		secretFile(t, secret.path, secret.old, 0o600)
		opens("back again", secret.use(secret.old), secret.page, http.StatusOK)
	}
	if log.count("canary") > 0 {
		t.Error("the log has a secret")
	}
}

func TestWrongLoginsAreCountedAndLogged(t *testing.T) {
	t.Parallel()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Login = everyLogin(t)
	m := metrics.New()
	cfg.Registry, cfg.LoginFailed = m.Registry(), m.LoginFailed
	log := &logs{}
	cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
	base := start(t, cfg)
	for range 20 {
		ask(t, http.MethodGet, base+"/api/status?sent-canary", bearer("sent-canary"))
		ask(t, http.MethodGet, base+"/sent-canary", basic("sent-canary", "sent-canary"))
		ask(t, http.MethodGet, base+"/", header("Sent-Canary sent-canary"))
		ask(t, http.MethodGet, base+"/", nil)
	}
	body := ask(t, http.MethodGet, base+"/metrics", bearer(metricsToken)).body
	for _, scheme := range []string{"bearer", "basic", "other"} {
		if want := `quorumbox_admin_login_failures_total{scheme="` + scheme + `"} 20`; !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if got := log.count("wrong login"); got != 1 {
		t.Errorf("got %d lines for 60 wrong logins, want one", got)
	}
	if log.count(`"from":"127.0.0.1"`) != 1 || log.count("canary") > 0 || log.count("Canary") > 0 {
		t.Errorf("got %s, want the address and nothing that was sent", &log.b)
	}
}

// Security list, item 18, for who has logged in: a browser sends a password by itself.
func TestLoginDoesNotAllowForeignOrigins(t *testing.T) {
	t.Parallel()
	cfg := config(t, pgtest.New(t), "127.0.0.1:0")
	cfg.Login = everyLogin(t)
	base := start(t, cfg)
	for _, tt := range []struct {
		name, header, value string
		want                int
	}{
		{"another origin", "Origin", "https://evil.example", http.StatusForbidden},
		{"cross-site", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"same site, another origin", "Sec-Fetch-Site", "same-site", http.StatusForbidden},
		{"same origin", "Origin", base, http.StatusNotFound}, // there is no such queue
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			got := ask(t, method, base+"/river/api/queues/none/pause", func(r *http.Request) {
				basic("operator", password)(r)
				r.Header.Set(tt.header, tt.value)
			})
			want := tt.want
			if want == http.StatusNotFound && method != http.MethodPut {
				want = http.StatusMethodNotAllowed
			}
			if got.status != want {
				t.Errorf("%s: %s: got %d %.100q, want %d", tt.name, method, got.status, got.body, want)
			}
		}
	}
}
