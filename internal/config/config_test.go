package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/config"
	"quorumbox/internal/outbound"
	"quorumbox/internal/secret"
	"quorumbox/quorum"
)

func writeFile(tb testing.TB, text string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "quorumbox.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil { //nolint:gosec // G703: the path is the test's own
		tb.Fatal(err)
	}
	return path
}

func load(tb testing.TB, text string, environ ...string) config.Config {
	tb.Helper()
	cfg, err := config.Load(writeFile(tb, text), environ)
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

func diff(got, want config.Config) string {
	return cmp.Diff(want, got,
		cmp.Comparer(func(a, b quorum.Writes) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

const fullFile = `
database:
  url_file: /run/db-url
  max_conns: 12
sender_id: host:writer-1
signing_key_file: /run/seed
credential_file: /run/cred
credential_chain_file: /run/chain
lenient_acks: true
api_key_file: /run/api-key
quorum:
  writes: 2
  ack_timeout: 1500ms
  grace: 3ms
  namespaces:
    - {glob: "prod/*/logs", writes: 1}
    - {glob: "prod/**", writes: all, ack_timeout: 5s}
outbound:
  default: deny
  rules:
    - {action: deny, host: "*", scheme: http, reason: "no \"plain\" text"}
    - {action: allow, host: "*.example"}
peers:
  - id: peer-a
    url: https://a.example:9077/
    api_key_file: /run/key-a
    allow: [10.0.0.0/8, "fd00::/8"]
    connections: 3
    catchup_rate: 500
    client_cert_file: /run/cert
    client_key_file: /run/key
    ca_file: /run/ca
  - {id: peer_b2, url: "http://127.0.0.1:9078/base"}
fan_out: {workers: 2, max_items: 500, max_bytes: 1048576}
retry: {initial: 2s, max: 1m, hold: 3m, workers: 1, zombie: 2m}
relay: {poll_min: 2ms, poll_max: 100ms}
jobs: {timeout: 9s, rescue_after: 40s, completed_retention: 1h, soft_stop: 0s}
retention: {history: 10m, backlog_entries: 2000, backlog_age: 2h, tombstones: 24h}
verify: {every: 24h, rate: 5, repair: true}
admin: {listen: "[::1]:0"}
log: {level: warn, format: text}
`

func TestLoadFile(t *testing.T) {
	t.Parallel()
	got := load(t, fullFile)
	if len(got.Peers) != 2 {
		t.Fatalf("peers: got %d, want 2", len(got.Peers))
	}
	a, b := got.Peers[0], got.Peers[1]
	checks := []struct {
		name      string
		got, want any
	}{
		{"database.url_file", got.Database.URLFile, "/run/db-url"},
		{"database.max_conns", got.Database.MaxConns, 12},
		{"sender_id", got.SenderID, "host:writer-1"},
		{"signing_key_file", got.SigningKeyFile, "/run/seed"},
		{"quorum.writes", got.Quorum.Writes.String(), "2"},
		{"quorum.ack_timeout", got.Quorum.AckTimeout, 1500 * time.Millisecond},
		{"quorum.grace", got.Quorum.Grace, 3 * time.Millisecond},
		{"quorum.namespaces", len(got.Quorum.Namespaces), 2},
		{"quorum.namespaces[0].glob", got.Quorum.Namespaces[0].Glob, "prod/*/logs"},
		{"quorum.namespaces[0].writes", got.Quorum.Namespaces[0].Writes.String(), "1"},
		{"quorum.namespaces[0].ack_timeout is the common one", got.Quorum.Namespaces[0].AckTimeout, 1500 * time.Millisecond},
		{"quorum.namespaces[1].ack_timeout", got.Quorum.Namespaces[1].AckTimeout, 5 * time.Second},
		{"outbound.default", got.Outbound.Default, outbound.Deny},
		{"outbound.rules", len(got.Outbound.Rules), 2},
		{"outbound.rules[0]", got.Outbound.Rules[0], config.OutboundRule{Action: outbound.Deny, Host: "*", Scheme: "http", Reason: `no "plain" text`}},
		{"outbound.rules[1]", got.Outbound.Rules[1], config.OutboundRule{Action: outbound.Allow, Host: "*.example", Scheme: "*"}},
		{"credential_file", got.CredentialFile, "/run/cred"},
		{"credential_chain_file", got.CredentialChainFile, "/run/chain"},
		{"lenient_acks", got.LenientAcks, true},
		{"fan_out", got.FanOut, config.FanOut{Workers: 2, MaxItems: 500, MaxBytes: 1 << 20}},
		{"retry", got.Retry, config.Retry{Initial: 2 * time.Second, Max: time.Minute, Hold: 3 * time.Minute, Workers: 1, Zombie: 2 * time.Minute}},
		{"relay", got.Relay, config.Relay{PollMin: 2 * time.Millisecond, PollMax: 100 * time.Millisecond}},
		{"jobs", got.Jobs, config.Jobs{Timeout: 9 * time.Second, RescueAfter: 40 * time.Second, CompletedRetention: time.Hour}},
		{"retention", got.Retention, config.Retention{History: 10 * time.Minute, BacklogEntries: 2000, BacklogAge: 2 * time.Hour, Tombstones: 24 * time.Hour}},
		{"verify", got.Verify, config.Verify{Every: 24 * time.Hour, Rate: 5, Repair: true}},
		{"admin.listen", got.Admin.Listen, "[::1]:0"},
		{"log.level", got.Log.Level.String(), "WARN"},
		{"log.format", got.Log.Format, config.LogText},
		{"peers[0].id", a.ID, "peer-a"},
		{"peers[0] base URL", a.BaseURL(), "https://a.example:9077"},
		{"peers[0].allow", len(a.Allow), 2},
		{"peers[0].connections", a.Connections, 3},
		{"peers[0].catchup_rate", a.CatchupRate, 500},
		{"peers[0].client_cert_file", a.ClientCertFile, "/run/cert"},
		{"peers[0].client_key_file", a.ClientKeyFile, "/run/key"},
		{"peers[0].ca_file", a.CAFile, "/run/ca"},
		{"peers[0] api key", a.APIKeyFile, "/run/key-a"},
		{"peers[1].id", b.ID, "peer_b2"},
		{"peers[1].connections", b.Connections, config.DefaultPeer().Connections},
		{"peers[1].catchup_rate", b.CatchupRate, 20_000},
		{"peers[1] api key", b.APIKeyFile, ""},
		{"ids", strings.Join(got.PeerIDs(), " "), "peer-a peer_b2"},
	}
	for _, c := range checks {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
	policy, err := got.Policy()
	if want := (quorum.Policy{N: 3, W: 2}); err != nil || policy != want {
		t.Errorf("policy: got %v, %v, want %v", policy, err, want)
	}
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()
	want := config.Default()
	for name, text := range map[string]string{
		"empty file":         "",
		"comments only":      "# nothing\n",
		"headings only":      "quorum:\npeers:\n#  - id: a\nlog:\n",
		"document marker":    "%YAML 1.1\n# a comment\n---\nlog: {level: info}\n",
		"null where a value": "quorum: {writes: null, grace: ~}\n",
	} {
		if d := diff(load(t, text), want); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	got, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(got, want); d != "" {
		t.Errorf("no file (-want +got):\n%s", d)
	}
	if host, _ := os.Hostname(); got.SenderID != "host:"+host {
		t.Errorf("sender_id: got %s, want host:%s", got.SenderID, host)
	}
}

func TestEnvironmentOverFile(t *testing.T) {
	t.Parallel()
	got := load(t, fullFile,
		"QUORUMBOX_QUORUM__WRITES=all",
		"QUORUMBOX_QUORUM__ACK_TIMEOUT=1s",
		"QUORUMBOX_FAN_OUT__WORKERS=7",
		"QUORUMBOX_ADMIN__LISTEN=",
		"QUORUMBOX_LOG__LEVEL=debug",
		`QUORUMBOX_PEERS=[{"id": "only", "url": "https://only.example", "allow": ["192.168.0.0/16"]}]`,
		"PATH=/bin", "QUORUMBOX=x", "nonsense",
	)
	want := load(t, fullFile)
	if err := want.Quorum.Writes.UnmarshalText([]byte("all")); err != nil {
		t.Fatal(err)
	}
	want.Quorum.AckTimeout = time.Second
	want.Quorum.Namespaces[0].AckTimeout = time.Second // which it has left out
	want.FanOut.Workers = 7
	want.Admin.Listen = ""
	want.Log.Level = -4
	want.Peers = load(t, `peers: [{id: only, url: "https://only.example", allow: [192.168.0.0/16]}]`).Peers
	if d := diff(got, want); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestPeersInEnvironmentAsYAML(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("", []string{"QUORUMBOX_PEERS=- id: a\n  url: https://a.example\n- id: b\n  url: https://b.example\n"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(cfg.PeerIDs(), " "), "a b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	const (
		inFile  = "database: {url: 'postgres://file'}"
		urlFile = "database: {url_file: /from/file}"
	)
	tests := []struct {
		name     string
		file     string
		environ  []string
		wantURL  string
		wantFile string
	}{
		{"file", inFile, nil, "postgres://file", ""},
		{"alias over file", inFile, []string{"DATABASE_URL=postgres://alias"}, "postgres://alias", ""},
		{"alias over url_file", urlFile, []string{"DATABASE_URL=postgres://alias"}, "postgres://alias", ""},
		{"empty alias is none", inFile, []string{"DATABASE_URL="}, "postgres://file", ""},
		{
			"our name over alias", inFile,
			[]string{"QUORUMBOX_DATABASE__URL=postgres://ours", "DATABASE_URL=postgres://alias"},
			"postgres://ours", "",
		},
		{
			"our file over alias", inFile,
			[]string{"DATABASE_URL=postgres://alias", "QUORUMBOX_DATABASE__URL_FILE=/from/env"},
			"", "/from/env",
		},
		{"keyword form", "database: {url: 'host=db dbname=x'}", nil, "host=db dbname=x", ""},
		{"none: embedded", "", nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := load(t, tt.file, tt.environ...).Database
			if got.URL.Reveal() != tt.wantURL || got.URLFile != tt.wantFile {
				t.Errorf("got url %q, file %q, want %q, %q", got.URL.Reveal(), got.URLFile, tt.wantURL, tt.wantFile)
			}
		})
	}
}

func TestConnString(t *testing.T) {
	t.Parallel()
	if got, err := (config.Database{URL: secret.New("postgres://a")}).ConnString(); err != nil || got.Reveal() != "postgres://a" {
		t.Errorf("url: got %q, %v", got.Reveal(), err)
	}
	path := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(path, []byte("postgres://b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (config.Database{URLFile: path}).ConnString(); err != nil || got.Reveal() != "postgres://b" {
		t.Errorf("url_file: got %q, %v", got.Reveal(), err)
	}
	if _, err := (config.Database{URLFile: path + "x"}).ConnString(); err == nil {
		t.Error("missing url_file: got no error")
	}
}

// The printed settings are a file that means the same.
func TestPrintRoundTrip(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"defaults": "", "full": fullFile,
		"odd text": "signing_key_file: \"/a b/\\\"c\\\"\\u00e9: #\\t\"\napi_key_file: 'yes'\n",
	} {
		cfg := load(t, text)
		var b strings.Builder
		if err := cfg.Print(&b); err != nil {
			t.Fatal(err)
		}
		if d := diff(load(t, b.String()), cfg); d != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", name, d, b.String())
		}
	}
}

func TestPrintHidesSecrets(t *testing.T) {
	t.Parallel()
	cfg := load(t, "database: {url: 'postgres://u:canary@db/x'}")
	var b strings.Builder
	if err := cfg.Print(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "canary") || !strings.Contains(b.String(), `url: "[redacted]"`) {
		t.Errorf("got\n%s\nwant the URL redacted", b.String())
	}
}
