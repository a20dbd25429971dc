package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quorumbox/internal/config"
)

// refusal is a file and an environment that must not load, and what the error must say.
type refusal struct {
	name    string
	file    string
	environ []string
	want    []string
}

const onePeer = "peers: [{id: a, url: 'https://a.example'}]\n"

func peerWith(setting string) string {
	return "peers: [{id: a, url: 'https://a.example', " + setting + "}]"
}

func peerURL(url string) string { return "peers: [{id: a, url: '" + url + "'}]" }

func allRefusals() []refusal {
	return slices.Concat(structureRefusals(), valueRefusals(), ruleRefusals(), listRefusals(), fileRefusals(), tracingRefusals())
}

func structureRefusals() []refusal {
	return []refusal{
		{name: "unknown key", file: "quorum: {write: 2}", want: []string{"quorum.write is no setting", "did you mean writes?"}},
		{name: "unknown key far from all", file: "quorum: {colour: red}", want: []string{"quorum.colour", "known here are ack_timeout, grace, namespaces, writes"}},
		{name: "unknown section", file: "fanout: {}", want: []string{"fanout", "did you mean fan_out?"}},
		{name: "upper case key", file: "Quorum: {}", want: []string{"Quorum is no setting", "did you mean quorum?"}},
		{name: "dotted key", file: "quorum.writes: 2", want: []string{"quorum.writes is no setting"}},
		{name: "unknown peer key", file: peerWith("conections: 2"), want: []string{"peers[0].conections", "did you mean connections?"}},
		{name: "key that is a value", file: "'postgres://u:canary@h': 1", want: []string{"is not shown"}}, //nolint:gosec // G101: no real password
		{name: "key that is a number", file: "7: 1", want: []string{"7 is no setting"}},
		{name: "section that is a value", file: "quorum: 2", want: []string{"quorum is a single value", "ack_timeout, grace, namespaces, writes"}},
		{name: "section that is a list", file: "log: [info]", want: []string{"log is a list"}},
		{name: "peers that are a map", file: "peers: {a: b}", want: []string{"peers is a map", "want a list"}},
		{name: "peer that is a value", file: "peers: [canary]", want: []string{"peers[0] is a single value"}},
		{name: "peer that is empty", file: "peers:\n  -\n", want: []string{"peers[0] is empty"}},
		{name: "no map at all", file: "postgres://u:canary@h/db", want: []string{"is not valid YAML"}}, //nolint:gosec // G101: no real password
		{name: "list at the top", file: "- canary\n", want: []string{"is not valid YAML"}},
		{name: "broken YAML", file: "log: {level: 'info}\n", want: []string{"is not valid YAML"}},
		{name: "key twice", file: "sender_id: canary1\nsender_id: canary2\n", want: []string{"is not valid YAML", "already defined"}},
		{name: "secret as alias", file: "database: {url: *canary}", want: []string{"is not valid YAML"}},
		{name: "second document", file: "log: {level: info}\n---\nlog: {level: debug}\n", want: []string{"line 2 starts a second YAML document"}},
		{name: "very large", file: strings.Repeat("# filler\n", 150_000), want: []string{"larger than 1048576 bytes"}},
		{name: "unknown variable", environ: []string{"QUORUMBOX_QUORUM__WRITE=2"}, want: []string{"QUORUMBOX_QUORUM__WRITE is no setting", "did you mean QUORUMBOX_QUORUM__WRITES?"}},
		{name: "single underscore", environ: []string{"QUORUMBOX_LOG_LEVEL=info"}, want: []string{"did you mean QUORUMBOX_LOG__LEVEL?"}},
		{name: "variable in lower case", environ: []string{"QUORUMBOX_log__level=info"}, want: []string{"did you mean QUORUMBOX_LOG__LEVEL?"}},
		{name: "variable far from all", environ: []string{"QUORUMBOX_X=canary"}, want: []string{"QUORUMBOX_X is no setting", "docs/configuration.md"}},
		{name: "variable of a section", environ: []string{"QUORUMBOX_QUORUM=canary"}, want: []string{"QUORUMBOX_QUORUM is no setting"}},
		{name: "variable of one peer", environ: []string{"QUORUMBOX_PEERS__0__ID=canary"}, want: []string{"is no setting"}},
		{name: "peers variable broken", environ: []string{"QUORUMBOX_PEERS=[{canary"}, want: []string{"QUORUMBOX_PEERS is not valid YAML or JSON"}},
		{name: "peers variable no list", environ: []string{"QUORUMBOX_PEERS=canary"}, want: []string{"QUORUMBOX_PEERS", "want a list"}},
		{name: "peers variable unknown key", environ: []string{`QUORUMBOX_PEERS=[{"idd": "canary"}]`}, want: []string{"QUORUMBOX_PEERS: peers[0].idd", "did you mean id?"}},
		{name: "peers variable leaves its key", environ: []string{"QUORUMBOX_PEERS=[]\nquorum: {writes: 1}"}, want: []string{"QUORUMBOX_PEERS is not valid"}},
	}
}

func valueRefusals() []refusal {
	return []refusal{
		{name: "duration as a number", file: "quorum: {ack_timeout: 2000}", want: []string{"quorum.ack_timeout is 2000", "with its unit"}},
		{name: "duration without unit", environ: []string{"QUORUMBOX_QUORUM__ACK_TIMEOUT=2"}, want: []string{`QUORUMBOX_QUORUM__ACK_TIMEOUT is "2"`, "with its unit"}},
		{name: "empty duration", environ: []string{"QUORUMBOX_RETRY__MAX="}, want: []string{"QUORUMBOX_RETRY__MAX is empty"}},
		{name: "number as text", file: "fan_out: {workers: many}", want: []string{`fan_out.workers is "many"`, "whole number"}},
		{name: "number with a fraction", file: "fan_out: {workers: 1.5}", want: []string{"fan_out.workers is 1.5", "whole number"}},
		{name: "number too large to hold", file: "fan_out: {workers: 99999999999999999999}", want: []string{"fan_out.workers"}},
		{name: "text as a number", file: "sender_id: 7", want: []string{"sender_id is 7", "quotes"}},
		{name: "text as a map", file: "sender_id: {a: canary}", want: []string{"sender_id is a map", "quotes"}},
		{name: "url as a list", file: "database: {url: ['postgres://u:canary@h']}", want: []string{"database.url is not text"}}, //nolint:gosec // G101: no real password
		{name: "writes as a word", file: "quorum: {writes: most}", want: []string{`quorum.writes is "most"`, "want all, majority or a number"}},
		{name: "writes of zero", file: "quorum: {writes: 0}", want: []string{"quorum.writes is", "at least 1"}},
		{name: "writes as a boolean", file: "quorum: {writes: true}", want: []string{"quorum.writes is true"}},
		{name: "level", file: "log: {level: loud}", want: []string{`log.level is "loud"`, "debug, info, warn or error"}},
		{name: "level with an offset", file: "log: {level: info+2}", want: []string{"log.level"}},
		{name: "format", file: "log: {format: xml}", want: []string{`log.format is "xml"`, "json or text"}},
		{name: "allow as text", file: peerWith("allow: 10.0.0.0/8"), want: []string{`peers[0].allow is "10.0.0.0/8"`, "want a list"}},
		{name: "allow with an address", file: peerWith("allow: [10.1.2.3]"), want: []string{"peers[0].allow has", "write 10.1.2.3/32"}},
		{name: "allow with a name", file: peerWith("allow: [db.example]"), want: []string{"peers[0].allow has", "10.0.0.0/8"}},
		{name: "allow with a number", file: peerWith("allow: [10]"), want: []string{"peers[0].allow has 10"}},
		{name: "allow with stray bits", file: peerWith("allow: [10.1.2.3/8]"), want: []string{"write 10.0.0.0/8"}},
		{name: "allow everything", file: peerWith("allow: ['::/0']"), want: []string{"every address"}},
		{name: "allow link-local", file: peerWith("allow: [169.254.0.0/16]"), want: []string{"link-local", "never dialled"}},
		{name: "allow mapped addresses", file: peerWith("allow: ['::ffff:10.0.0.0/104']"), want: []string{"IPv4"}},
	}
}

func ruleRefusals() []refusal {
	return []refusal{
		{name: "url and url_file", file: "database: {url: 'postgres://u:canary@h', url_file: /f}", want: []string{"database.url and database.url_file are both set"}}, //nolint:gosec // G101: no real password
		{name: "both in the environment", environ: []string{"QUORUMBOX_DATABASE__URL=postgres://canary", "QUORUMBOX_DATABASE__URL_FILE=/f"}, want: []string{"both set"}},
		{name: "url of something else", file: "database: {url: 'mysql://u:canary@h'}", want: []string{"database.url (not shown)", "postgres://"}}, //nolint:gosec // G101: no real password
		{name: "too few connections", file: "database: {max_conns: 3}", want: []string{"database.max_conns is 3: want 4 to 500"}},
		{name: "sender with a blank", file: "sender_id: 'a b'", want: []string{`sender_id is "a b"`}},
		{name: "sender with dots", file: "sender_id: a..b", want: []string{"without .."}},
		{name: "sender as a path", file: "sender_id: /a", want: []string{"not starting with /"}},
		{name: "sender too long", file: "sender_id: " + strings.Repeat("a", 129), want: []string{"1 to 128"}},
		{name: "sender empty", file: "sender_id: ''", want: []string{"sender_id is empty", "set sender_id"}},
		{name: "sender reserved", file: "sender_id: ai:migrate", want: []string{`sender_id is "ai:migrate"`, "reserves"}},
		{name: "more writes than members", file: "quorum: {writes: 3}\n" + onePeer, want: []string{"quorum.writes is 3: want at most 2", "the local commit, which counts"}},
		{name: "writes without peers", file: "quorum: {writes: 2}", want: []string{"want at most 1"}},
		{name: "ack timeout short", file: "quorum: {ack_timeout: 9ms}", want: []string{"quorum.ack_timeout is 9ms: want 10ms to 1m"}},
		{name: "ack timeout beside job timeout", file: "quorum: {ack_timeout: 6s}", want: []string{"quorum.ack_timeout is 6s: want less than jobs.timeout (8s) minus 2s"}},
		{name: "grace negative", file: "quorum: {grace: -1ms}", want: []string{"quorum.grace is -1ms: want 0s to 1s"}},
		{name: "grace as long as the deadline", file: "quorum: {grace: 20ms, ack_timeout: 20ms}", want: []string{"quorum.grace is 20ms: want less than quorum.ack_timeout"}},
		{name: "peer without id", file: "peers: [{url: 'https://a.example'}]", want: []string{"peers[0].id is empty"}},
		{name: "peer id in upper case", file: "peers: [{id: A, url: 'https://a.example'}]", want: []string{`peers[0].id is "A"`}},
		{name: "peer id with two dashes", file: "peers: [{id: a--b, url: 'https://a.example'}]", want: []string{"peers[0].id"}},
		{name: "peer id too long", file: "peers: [{id: " + strings.Repeat("a", 41) + ", url: 'https://a.example'}]", want: []string{"at most 40"}},
		{name: "peer id twice", file: "peers: [{id: a, url: 'https://a.example'}, {id: a, url: 'https://b.example'}]", want: []string{"peers[1].id", "peers[0] has it already"}},
		{name: "peer url twice", file: "peers: [{id: a, url: 'https://a.example/'}, {id: b, url: 'HTTPS://A.example'}]", want: []string{"peers[1].url is the one of peers[0]"}},
		{name: "too many peers", file: manyPeers(65), want: []string{"peers has 65 entries: want at most 64"}},
		{name: "no connections", file: peerWith("connections: 0"), want: []string{"peers[0].connections is 0: want 1 to 256"}},
		{name: "too slow a catch-up", file: peerWith("catchup_rate: 99"), want: []string{"peers[0].catchup_rate is 99: want 100 to 1000000"}},
		{name: "peer without url", file: "peers: [{id: a}]", want: []string{"peers[0].url is empty"}},
		{name: "url with a password", file: peerURL("https://u:canary@h"), want: []string{"user or password", "api_key_file"}},
		{name: "url of another scheme", file: peerURL("ftp://h"), want: []string{"neither http:// nor https://"}},
		{name: "url without scheme", file: peerURL("h:9077"), want: []string{"neither http:// nor https://"}},
		{name: "url without host", file: peerURL("https:///x"), want: []string{"has no host"}},
		{name: "url with a query", file: peerURL("https://h/?key=canary"), want: []string{"query or fragment"}},
		{name: "url with a fragment", file: peerURL("https://h/#canary"), want: []string{"query or fragment"}},
		{name: "url that cannot be parsed", file: peerURL("https://u:canary@h:x"), want: []string{"cannot be parsed"}},
		{name: "url with port 0", file: peerURL("https://h:0"), want: []string{"want 1 to 65535"}},
		{name: "url with a huge port", file: peerURL("https://h:70000"), want: []string{"want 1 to 65535"}},
		{name: "url with an empty port", file: peerURL("https://h:"), want: []string{"want 1 to 65535"}},
		{name: "url with a blank", file: peerURL("https://h/a b"), want: []string{"blanks"}},
		{name: "no fan-out workers", file: "fan_out: {workers: 0}", want: []string{"fan_out.workers is 0: want 1 to 1000"}},
		{name: "more items than peers take", file: "fan_out: {max_items: 1001}", want: []string{"fan_out.max_items is 1001"}},
		{name: "more bytes than peers take", file: "fan_out: {max_bytes: 2097153}", want: []string{"fan_out.max_bytes is 2097153"}},
		{name: "retry from above its end", file: "retry: {initial: 30s}", want: []string{"retry.max is 15s: want at least retry.initial, which is 30s"}},
		{name: "retry at once", file: "retry: {initial: 0s}", want: []string{"retry.initial is 0s"}},
		{name: "retry for ever", file: "retry: {max: 2h}", want: []string{"retry.max is 2h"}},
		{name: "zombie too short", file: "retry: {zombie: 999ms}", want: []string{"retry.zombie is 999ms"}},
		{name: "retry without workers", file: "retry: {workers: 65}", want: []string{"retry.workers is 65"}},
		{name: "no hold", file: "retry: {hold: 10ms}", want: []string{"retry.hold is 10ms: want 1s to 1h"}},
		{name: "relay from above its end", file: "relay: {poll_min: 60ms}", want: []string{"relay.poll_max is 50ms: want at least relay.poll_min"}},
		{name: "relay without pause", file: "relay: {poll_min: 0s}", want: []string{"relay.poll_min is 0s"}},
		{name: "no history", file: "retention: {history: 0s}", want: []string{"retention.history is 0s: want 1s to 720h"}},
		{name: "history shorter than a zombie's life", file: "retention: {history: 80s}", want: []string{"retention.history is 1m20s: want at least retry.zombie, which is 1m30s"}},
		{name: "short backlog", file: "retention: {backlog_entries: 999}", want: []string{"retention.backlog_entries is 999: want 1000 to"}},
		{name: "young backlog", file: "retention: {backlog_age: 59s}", want: []string{"retention.backlog_age is 59s: want 1m to 8760h"}},
		{name: "short memory", file: "retention: {tombstones: 59m}", want: []string{"retention.tombstones is 59m: want 1h to 8760h"}},
		{name: "relay asleep", file: "relay: {poll_max: 11s}", want: []string{"relay.poll_max is 11s"}},
		{name: "rescue of live jobs", file: "jobs: {timeout: 21s}", want: []string{"jobs.rescue_after is 30s: want at least jobs.timeout (21s) plus 10s"}},
		{name: "job timeout short", file: "jobs: {timeout: 999ms}", want: []string{"jobs.timeout is 999ms"}},
		{name: "rescue late", file: "jobs: {rescue_after: 61m}", want: []string{"jobs.rescue_after is 1h1m"}},
		{name: "retention short", file: "jobs: {completed_retention: 1s}", want: []string{"jobs.completed_retention is 1s"}},
		{name: "soft stop negative", file: "jobs: {soft_stop: -1s}", want: []string{"jobs.soft_stop is -1s"}},
		{name: "comparison all the time", file: "verify: {every: 59s}", want: []string{"verify.every is 59s: want 1m to 720h"}},
		{name: "comparison hardly ever", file: "verify: {every: 721h}", want: []string{"verify.every is 721h: want 1m to 720h"}},
		{name: "comparison backwards", file: "verify: {every: -1h}", want: []string{"verify.every is -1h"}},
		{name: "comparison without requests", file: "verify: {rate: 0}", want: []string{"verify.rate is 0: want 1 to 1000"}},
		{name: "comparison too fast", file: "verify: {rate: 1001}", want: []string{"verify.rate is 1001"}},
		{name: "listen everywhere", file: "admin: {listen: ':9080'}", want: []string{"admin.listen", "no login: set admin.token_file", "127.0.0.1:9080"}},
		{name: "listen on any IPv4", file: "admin: {listen: '0.0.0.0:9080'}", want: []string{"no login"}},
		{name: "listen on any IPv6", file: "admin: {listen: '[::]:9080'}", want: []string{"no login"}},
		{name: "listen on a private address", file: "admin: {listen: '10.0.0.1:9080'}", want: []string{"no login"}},
		{name: "listen on a name", file: "admin: {listen: 'localhost.example:9080'}", want: []string{"no login"}},
		{name: "user name alone", file: "admin: {username: u}", want: []string{"admin has one of username and password_file"}},
		{name: "password alone", file: "admin: {password_file: /p}", want: []string{"admin has one of username and password_file"}},
		{name: "password alone and listen everywhere", file: "admin: {listen: ':1', password_file: /p}", want: []string{"no login", "admin has one of"}},
		{name: "user name with a colon", file: "admin: {username: 'a:b', password_file: /p}", want: []string{"admin.username is", "without a colon"}},
		{name: "long user name", file: "admin: {username: " + strings.Repeat("u", 129) + ", password_file: /p}", want: []string{"admin.username is", "at most 128"}},
		{name: "metrics token alone", file: "admin: {metrics_token_file: /t}", want: []string{"admin.metrics_token_file is set and there is no login"}},
		{name: "one token for all", file: "admin: {token_file: /t, metrics_token_file: /t}", want: []string{"are the same file"}},
		{name: "certificate of the listener alone", file: "admin: {tls_cert_file: /c}", want: []string{"admin has one of tls_cert_file and tls_key_file"}},
		{name: "key of the listener alone", file: "admin: {tls_key_file: /c}", want: []string{"admin has one of tls_cert_file and tls_key_file"}},
		{name: "port by name with a login", file: "admin: {listen: '0.0.0.0:http', token_file: /t}", want: []string{"0 to 65535"}},
		{name: "listen without port", file: "admin: {listen: 127.0.0.1}", want: []string{"want host:port"}},
		{name: "listen on a port by name", file: "admin: {listen: '127.0.0.1:http'}", want: []string{"0 to 65535"}},
	}
}

func manyPeers(n int) string {
	var b strings.Builder
	b.WriteString("peers:\n")
	for i := range n {
		id := string(rune('a'+i%26)) + string(rune('a'+i/26))
		b.WriteString("  - {id: " + id + ", url: 'https://" + id + ".example'}\n")
	}
	return b.String()
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range allRefusals() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := config.Load(writeFile(t, tt.file), tt.environ)
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %v\nwant it to say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows what may be a secret: %v", err)
			}
			if lines := strings.Count(err.Error(), "\n"); lines > 2 {
				t.Errorf("one mistake, %d errors:\n%v", lines+1, err)
			}
		})
	}
}

func TestLoadAccepts(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"64 peers":             manyPeers(64),
		"admin off":            "admin: {listen: ''}",
		"admin on localhost":   "admin: {listen: 'localhost:0'}",
		"admin on 127.0.0.2":   "admin: {listen: '127.0.0.2:1'}",
		"admin everywhere":     "admin: {listen: ':9080', token_file: /t}",
		"admin on an address":  "admin: {listen: '10.0.0.1:0', username: u, password_file: /p}",
		"admin with all":       "admin: {listen: 'host.example:1', token_file: /t, username: u, password_file: /p, metrics_token_file: /m, tls_cert_file: /c, tls_key_file: /k}",
		"admin mapped":         "admin: {listen: '[::ffff:127.0.0.1]:1'}",
		"no grace":             "quorum: {grace: 0s}",
		"writes equal members": "quorum: {writes: 2}\n" + onePeer,
		"ack below the margin": "quorum: {ack_timeout: 5999ms}",
		"rescue at the margin": "jobs: {timeout: 20s}",
		"peer id of 40":        "peers: [{id: " + strings.Repeat("a", 40) + ", url: 'https://a.example'}]",
		"peer on IPv6":         peerURL("http://[::1]:9077"),
		"sender of 128":        "sender_id: " + strings.Repeat("a", 128),
		"number in quotes":     "fan_out: {workers: '3'}",
	} {
		if _, err := config.Load(writeFile(t, text), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Everything that is wrong is named at once.
func TestLoadNamesAllProblems(t *testing.T) {
	t.Parallel()
	_, err := config.Load(writeFile(t, "lgo: {}\nlog: {level: loud}\nretry: {workers: 0}\n"), []string{"QUORUMBOX_FOO=1"})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"lgo", "log.level", "retry.workers", "QUORUMBOX_FOO"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant it to name %s", err, want)
		}
	}
}

func TestLoadWithoutFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "absent.yaml"), dir} {
		if _, err := config.Load(path, nil); err == nil || !strings.Contains(err.Error(), "configuration file") {
			t.Errorf("%s: got %v, want an error about the configuration file", path, err)
		}
	}
}

func TestValidateZeroConfig(t *testing.T) {
	t.Parallel()
	if err := (config.Config{}).Validate(); err == nil {
		t.Error("the zero Config passed")
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(fullFile, "", "")
	for _, r := range allRefusals() {
		if len(r.file) < 1000 {
			f.Add(r.file, "PEERS", strings.Join(r.environ, "\n"))
		}
	}
	f.Add("database: {url: 'postgres://u:canary@h'}", "DATABASE__URL", "postgres://canary")
	f.Add("&a [*a, *a]", "LOG__LEVEL", "info")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		const secret = "s3cr3t-canary"
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		environ := []string{"DATABASE_URL=mysql://" + secret, "QUORUMBOX_" + name + "=" + value}
		cfg, err := config.Load(path, environ)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error shows the secret: %v", err)
			}
			return
		}
		if err := cfg.Validate(); err != nil {
			t.Fatalf("loaded settings do not validate: %v", err)
		}
		var b strings.Builder
		if err := cfg.Print(&b); err != nil || strings.Contains(b.String(), secret) {
			t.Fatalf("print: %v\n%s", err, b.String())
		}
	})
}
