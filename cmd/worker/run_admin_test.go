package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/child"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

const adminToken = "0123456789abcdef0123456789abcdef"

// tokenFile writes a file with the token.
func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(adminToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freeListen is an address of this machine that nobody listens on.
func freeListen(t *testing.T) string {
	t.Helper()
	port, err := child.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(port)
}

// request asks an admin listener, with a bearer token unless that is empty.
func request(t *testing.T, method, url, token string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// until polls cond, which says what it saw last.
func until(t *testing.T, what string, cond func() (saw string, ok bool)) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		saw, ok := cond()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen: %s", what, saw)
		}
		<-tick.C
	}
}

// Whoever has the login pauses a peer in River UI, and only they.
func TestRiverUIPausesAPeer(t *testing.T) {
	t.Parallel()
	url, listen := pgtest.URL(t), freeListen(t)
	receiver := newReceiver(t, answerOK)
	receiver.Start()
	yaml := fmt.Sprintf("sender_id: host:test\nquorum: {writes: 1}\nadmin: {listen: %q, token_file: %q}\npeers:\n%s",
		listen, tokenFile(t), peerLine("peer-a", receiver.URL, ""))
	_, stop := startRun(t, url, yaml, `"msg":"pages served"`)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	write := func(id string) {
		t.Helper()
		var entry outbox.EntryID
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			stored, err := outbox.Store(t.Context(), tx, outbox.Memory{ID: id, Namespace: "n", Title: id, Content: "args-canary"})
			entry = stored.Entry
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the verdict of "+id, func() (string, bool) {
			var decided bool
			err := conn.QueryRow(t.Context(), `select exists (select from batches where $1 = any (entries) and verdict <> 'pending')`, entry).Scan(&decided)
			return fmt.Sprint(err), decided
		})
	}
	paused := func() (string, bool) {
		o := runWorker(t, url, yaml, "", "peers", "list", "--json")
		var peers []status.Peer
		if err := json.Unmarshal([]byte(o.stdout), &peers); err != nil || len(peers) != 1 {
			return o.stdout + o.stderr, false
		}
		return o.stdout, peers[0].Paused
	}
	inStep := func() (string, bool) {
		o := runWorker(t, url, yaml, "", "peers", "list", "--json")
		return o.stdout, strings.Contains(o.stdout, `"in_step":true`)
	}

	queue := "http://" + listen + "/river/api/queues/peer_peer-a"
	for _, token := range []string{"", adminToken + "x"} {
		if code, body := request(t, http.MethodPut, queue+"/pause", token); code != http.StatusUnauthorized {
			t.Errorf("without the login: got %d %s, want 401", code, body)
		}
	}
	if saw, is := paused(); is {
		t.Fatalf("a pause without the login: %s", saw)
	}
	write("m-1")
	until(t, "the push of m-1", func() (string, bool) { return "", receiver.requests.Load() == 1 })

	if code, body := request(t, http.MethodPut, queue+"/pause", adminToken); code != http.StatusOK {
		t.Fatalf("pause: got %d %s", code, body)
	}
	until(t, "the pause", paused)
	runWorker(t, url, yaml, "", "peers", "list").want(t, exitOK, "paused", "")
	write("m-2")
	until(t, "the peer lags", func() (string, bool) { saw, ok := inStep(); return saw, !ok })
	if n := receiver.requests.Load(); n != 1 {
		t.Errorf("got %d pushes to a paused peer, want none", n-1)
	}
	if code, body := request(t, http.MethodGet, "http://"+listen+"/river/api/jobs?state=available", adminToken); code != http.StatusOK || strings.Contains(body, "canary") {
		t.Errorf("got jobs %d %s, want them without anything of a memory", code, body)
	}
	if code, body := request(t, http.MethodPut, queue+"/resume", adminToken); code != http.StatusOK {
		t.Fatalf("resume: got %d %s", code, body)
	}
	until(t, "the peer in step again", inStep)
	if _, is := paused(); is || receiver.requests.Load() < 2 {
		t.Errorf("got paused %v and %d pushes after the resumption", is, receiver.requests.Load())
	}
	if code := stop(); code != exitOK {
		t.Errorf("got exit code %d, want 0", code)
	}
}

// What a worker serves, with the command for probes beside it.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	url, listen := pgtest.URL(t), freeListen(t)
	yaml := fmt.Sprintf("sender_id: host:test\nadmin: {listen: %q, token_file: %q}", listen, tokenFile(t))
	runWorker(t, url, yaml, "", "healthcheck").want(t, exitFailed, "", "ask the worker at "+listen)
	_, stop := startRun(t, url, yaml, `"msg":"pages served"`)
	runWorker(t, url, yaml, "", "healthcheck").want(t, exitOK, "ok\n", "")
	runWorker(t, url, yaml, "", "healthcheck", "--live").want(t, exitOK, "ok\n", "")
	for path, want := range map[string]string{
		"/metrics": "quorumbox_entries_decided_total 0", "/api/status": `"worker_running": true`, "/river/": "<title>River</title>", "/debug/pprof/": "goroutine",
	} {
		until(t, path, func() (string, bool) { // a worker runs once it is elected
			code, body := request(t, http.MethodGet, "http://"+listen+path, adminToken)
			return fmt.Sprintf("%d %.500s", code, body), code == http.StatusOK && strings.Contains(body, want)
		})
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `delete from quorumbox_migrations where version_id = 1`); err != nil {
		t.Fatal(err)
	}
	until(t, "not ready", func() (string, bool) {
		o := runWorker(t, url, yaml, "", "healthcheck")
		return o.stdout + o.stderr, o.code == exitFailed && strings.Contains(o.stderr, `answers 503 to /readyz: "not ready: schema_outdated"`)
	})
	runWorker(t, url, yaml, "", "healthcheck", "--live").want(t, exitOK, "ok\n", "")
	if code := stop(); code != exitOK {
		t.Errorf("got exit code %d, want 0", code)
	}
	runWorker(t, url, yaml, "", "healthcheck", "--live").want(t, exitFailed, "", "ask the worker at "+listen)
}

func TestHealthcheckRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, yaml string
		args       []string
		code       int
		stderr     string
	}{
		{"no listener", "admin: {listen: ''}", nil, exitFailed, "admin.listen is empty"},
		{"another port each time", "admin: {listen: '127.0.0.1:0'}", nil, exitFailed, "port 0"},
		{"bad settings", "admin: {listen: '0.0.0.0:1'}", nil, exitFailed, "no login"},
		{"no certificate", "admin: {listen: '127.0.0.1:1', tls_cert_file: /none, tls_key_file: /none}", nil, exitFailed, "admin.tls_cert_file"},
		{"argument", "", []string{"x"}, exitUsage, "worker healthcheck --help"},
		{"flag", "", []string{"--dead"}, exitUsage, "worker healthcheck --help"},
		{"no time", "", []string{"--timeout", "0s"}, exitUsage, "--timeout must be positive"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			runWorker(t, "", tt.yaml, "", append([]string{"healthcheck"}, tt.args...)...).want(t, tt.code, "", tt.stderr)
		})
	}
}

func TestProbeAddresses(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		":9080": "[127.0.0.1:9080 [::1]:9080]", "0.0.0.0:9080": "[127.0.0.1:9080 [::1]:9080]", "[::]:9080": "[127.0.0.1:9080 [::1]:9080]",
		"127.0.0.1:9080": "[127.0.0.1:9080]", "10.0.0.1:9080": "[10.0.0.1:9080]", "[::1]:9080": "[[::1]:9080]", "host.example:9080": "[host.example:9080]",
	} {
		if got, err := probeAddresses(listen); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, %v, want %s", listen, got, err, want)
		}
	}
}

// A worker that answers nothing is not healthy, and the command ends.
func TestHealthcheckOfASilentWorker(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	yaml := fmt.Sprintf("admin: {listen: %q}", strings.TrimPrefix(silent.URL, "http://"))
	runWorker(t, "", yaml, "", "healthcheck", "--timeout", "100ms").want(t, exitFailed, "", "no answer within 100ms")
}

// The command ui serves the pages, and is no worker.
func TestUI(t *testing.T) {
	t.Parallel()
	url, listen := pgtest.URL(t), freeListen(t)
	// The listener of the settings is the worker's.
	yaml := fmt.Sprintf("sender_id: host:test\nadmin: {listen: '127.0.0.1:1', token_file: %q}\npeers:\n%s", tokenFile(t), peerLine("peer-a", "http://127.0.0.1:1", ""))
	_, stop := startCommand(t, url, yaml, `"msg":"pages served"`, "ui", "--listen", listen)
	for path, want := range map[string]string{
		"/metrics": "quorumbox_undispatched_entries 0", "/api/status": `"worker_running": false`, "/river/": "<title>River</title>", "/river/api/queues": `"data":[]`,
		"/debug/pprof/": "goroutine",
	} {
		if code, body := request(t, http.MethodGet, "http://"+listen+path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s without the login: got %d %.100s, want 401", path, code, body)
		}
		if code, body := request(t, http.MethodGet, "http://"+listen+path, adminToken); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %.500s, want %q", path, code, body, want)
		}
	}
	if _, body := request(t, http.MethodGet, "http://"+listen+"/metrics", adminToken); strings.Contains(body, "quorumbox_entries_decided_total") {
		t.Error("got a worker's counters from a process that is none")
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body := request(t, http.MethodGet, "http://"+listen+path, ""); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: got %d %q", path, code, body)
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var rows int
	err = conn.QueryRow(t.Context(), `select (select count(*) from peers) + (select count(*) from river_leader) + (select count(*) from river_queue)`).Scan(&rows)
	if err != nil || rows != 0 {
		t.Errorf("got %d peers, leaders and queues, %v, want none: it does not replicate", rows, err)
	}
	if code := stop(); code != exitOK {
		t.Errorf("got exit code %d, want 0", code)
	}
}

func TestUIRefuses(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for _, tt := range []struct {
		name, url, yaml string
		args            []string
		code            int
		stderr          string
	}{
		{"no database", "", "", nil, exitFailed, "no database"},
		{"no listener", url, "admin: {listen: ''}", nil, exitFailed, "admin.listen is empty"},
		{"open to others", url, "", []string{"--listen", "0.0.0.0:0"}, exitFailed, "no login: set admin.token_file"},
		{"bad token", url, "admin: {token_file: /none}", []string{"--listen", "127.0.0.1:0"}, exitFailed, "admin.token_file"},
		{"bad certificate", url, "admin: {tls_cert_file: /none, tls_key_file: /none}", []string{"--listen", "127.0.0.1:0"}, exitFailed, "admin.tls_cert_file"},
		{"argument", url, "", []string{"x"}, exitUsage, "worker ui --help"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			runWorker(t, tt.url, tt.yaml, "", append([]string{"ui"}, tt.args...)...).want(t, tt.code, "", tt.stderr)
		})
	}
}

// A worker whose login cannot be used does not start: without the pages nobody would see it, and with open ones everybody.
func TestRunRefusesABadLogin(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for name, tt := range map[string]struct{ yaml, stderr string }{
		"open to others": {"admin: {listen: '0.0.0.0:0'}", "no login: set admin.token_file, or admin.username and admin.password_file"},
		"no token":       {"admin: {listen: '0.0.0.0:0', token_file: /none}", "admin.token_file: look at secret file"},
		"no certificate": {"admin: {tls_cert_file: /none, tls_key_file: /none}", "admin.tls_cert_file: open /none"},
	} {
		o := runWorker(t, url, "sender_id: host:test\n"+tt.yaml, "", "run")
		if o.code != exitFailed || !strings.Contains(o.stderr, tt.stderr) {
			t.Errorf("%s: got exit code %d and %s, want %d and %q", name, o.code, o.stderr, exitFailed, tt.stderr)
		}
	}
}

// A listener with TLS, on all addresses, whose certificate is replaced while it runs.
func TestAdminTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	url, listen := pgtest.URL(t), freeListen(t)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	issue := func(name string) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	}
	issue("first.example")
	all := strings.Replace(listen, "127.0.0.1", "0.0.0.0", 1)
	yaml := fmt.Sprintf("sender_id: host:test\nadmin: {listen: %q, token_file: %q, tls_cert_file: %q, tls_key_file: %q}", all, tokenFile(t), certFile, keyFile)
	_, stop := startRun(t, url, yaml, `"msg":"pages served","url":"https://`)
	get := func(name string, versions *tls.Config) (resp *http.Response, err error) { // without its body
		raw, err := os.ReadFile(certFile) //nolint:gosec // G304: the test wrote it
		if err != nil {
			t.Fatal(err)
		}
		versions.RootCAs, versions.ServerName = x509.NewCertPool(), name
		versions.RootCAs.AppendCertsFromPEM(raw)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+listen+"/api/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "worker.example" // foreign: there is a login
		req.Header.Set("Authorization", "Bearer "+adminToken)
		resp, err = (&http.Client{Transport: &http.Transport{TLSClientConfig: versions, DisableKeepAlives: true, ForceAttemptHTTP2: true}}).Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	for _, name := range []string{"first.example", "second.example"} {
		issue(name)
		resp, err := get(name, &tls.Config{MinVersion: tls.VersionTLS13}) //nolint:bodyclose // get has closed it
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || !strings.HasPrefix(resp.Header.Get("Strict-Transport-Security"), "max-age=") {
			t.Errorf("%s: got %s %s %v, want 200 with HSTS", name, resp.Proto, resp.Status, resp.Header)
		}
		runWorker(t, url, yaml, "", "healthcheck").want(t, exitOK, "ok\n", "")
	}
	old := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}                              //nolint:gosec // G402: that is what is refused
	if _, err := get("second.example", old); err == nil || !strings.Contains(err.Error(), "protocol version") { //nolint:bodyclose // get has closed it
		t.Errorf("TLS 1.2: got %v, want a refusal of the version", err)
	}
	if code, _ := request(t, http.MethodGet, "http://"+listen+"/livez", ""); code != http.StatusBadRequest {
		t.Errorf("without TLS: got %d, want 400", code)
	}
	if code := stop(); code != exitOK {
		t.Errorf("got exit code %d, want 0", code)
	}
}
