package peer_test

import (
	"crypto/ed25519"
	"net/netip"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, raw, want string }{
		{"http", "http://127.0.0.1:9077", "http://127.0.0.1:9077"},
		{"https without a port", "https://peer.example", "https://peer.example"},
		{"trailing slash", "http://peer.example/", "http://peer.example"},
		{"trailing slashes", "http://peer.example///", "http://peer.example"},
		{"path", "https://proxy.example/node-1/", "https://proxy.example/node-1"},
		{"IPv6", "http://[::1]:9077", "http://[::1]:9077"},
		{"trailing dot", "https://peer.example.:9077", "https://peer.example.:9077"},
		{"punycode", "https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
		{"compose name", "http://peer_a:9077", "http://peer_a:9077"},
		{"number in a label", "http://peer.7up.example", "http://peer.7up.example"},
		{"upper-case scheme", "HTTP://peer.example", "http://peer.example"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u, err := peer.ParseURL(test.raw)
			if err != nil {
				t.Fatalf("ParseURL: %v", err)
			}
			if got := u.String(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, raw, want string }{
		{"empty", "", "is empty"},
		{"no scheme", "peer.example:9077", "must begin with"},
		{"host and port only", "127.0.0.1:9077", "cannot be read"},
		{"other scheme", "ftp://peer.example", "must begin with"},
		{"opaque", "http:peer.example", "no host"},
		{"no host", "http://", "no host"},
		{"no host but a port", "http://:9077", "no host"},
		{"user", "http://user@peer.example", "user name or password"},
		{"password", "http://user:" + canary + "@peer.example", "user name or password"},
		{"broken with a password", "http://user:" + canary + "@peer.example:x", "cannot be read"},
		{"query", "http://peer.example?x=1", "query or a fragment"},
		{"empty query", "http://peer.example?", "query or a fragment"},
		{"fragment", "http://peer.example#x", "query or a fragment"},
		{"blank", "http://peer.example/a b", "blank or a character"},
		{"line feed", "http://peer.example\n", "blank or a character"},
		{"IDN", "http://bücher.example", "xn--"},
		{"port 0", "http://peer.example:0", "port outside"},
		{"big port", "http://peer.example:65536", "port outside"},
		{"empty port", "http://peer.example:", "empty port"},
		{"zone", "http://[fe80::1%25eth0]:9077", "IPv6"},
		{"broken IPv6", "http://[::1", "cannot be read"},
		{"hex address", "http://0x7f000001:9077", "ends in a number"},
		{"octal address", "http://017700000001:9077", "ends in a number"},
		{"octal parts", "http://0177.0.0.1", "ends in a number"},
		{"short address", "http://127.1", "ends in a number"},
		{"one number", "http://2130706433", "ends in a number"},
		{"address with a trailing dot", "http://127.0.0.1.", "ends in a number"},
		{"two dots", "http://peer..example", "no host name"},
		{"escaped host", "http://peer%41.example", "cannot be read"},
		{"long label", "http://" + strings.Repeat("a", 64) + ".example", "no host name"},
		{"dots in the path", "http://peer.example/../admin", ". or .."},
		{"escaped dots in the path", "http://peer.example/%2e%2e/admin", ". or .."},
		{"too long", "http://peer.example/" + strings.Repeat("a", 2048), "at most 2048"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := peer.ParseURL(test.raw)
			if err == nil {
				t.Fatal("got nil, want an error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to contain %q", err, test.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func FuzzPeerURL(f *testing.F) {
	for _, seed := range []string{
		"http://127.0.0.1:9077", "https://peer.example/a/", "http://user:pw@h", "http://[::1%25eth0]:1", "http://0x7f.1", "http://h:0", "//h", "http://h/%2e%2e/",
		"http://xn--bcher-kva.example.:65535/x%2Fy",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := peer.ParseURL(raw)
		if err != nil {
			return
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("%q gave %q", raw, u)
		}
		again, err := peer.ParseURL(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q gave %q, and that gave %q, %v", raw, u, again, err)
		}
	})
}

func TestCheckSenderID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"ai:leader", "host:node-1", "a", "A_b-c:d@e.f/g", strings.Repeat("a", 128)} {
		if err := peer.CheckSenderID(id); err != nil {
			t.Errorf("%q: got %v, want nil", id, err)
		}
	}
	for _, id := range []string{
		"", strings.Repeat("a", 129), "a b", "a\n", "é", "a..b", "/a", "a,b",
		"daemon", "system", "federation-catchup", "subscription-dispatch", "ai:http-internal", "ai:migrate", "export-internal", "governance-internal",
	} {
		if err := peer.CheckSenderID(id); err == nil {
			t.Errorf("%q: got nil, want an error", id)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*peer.Config)
		want   string
	}{
		{"no id", func(cfg *peer.Config) { cfg.ID = "" }, "id must be"},
		{"id with a blank", func(cfg *peer.Config) { cfg.ID = "peer a" }, "id must be"},
		{"long id", func(cfg *peer.Config) { cfg.ID = strings.Repeat("a", 129) }, "id must be"},
		{"no url", func(cfg *peer.Config) { cfg.URL = "" }, "url is empty"},
		{"no sender", func(cfg *peer.Config) { cfg.SenderID = "" }, "sender id is empty"},
		{"reserved sender", func(cfg *peer.Config) { cfg.SenderID = "system" }, "reserved"},
		{"short key", func(cfg *peer.Config) { cfg.SigningKey = ed25519.PrivateKey{1, 2} }, "signing key has 2 bytes"},
		{"api key with a line feed", func(cfg *peer.Config) { cfg.APIKey = secret.New(canary + "\nx") }, "api key holds"},
		{"api key with a blank at the end", func(cfg *peer.Config) { cfg.APIKey = secret.New(canary + " ") }, "api key holds"},
		{"invalid network", func(cfg *peer.Config) { cfg.AllowNets = []netip.Prefix{{}} }, "allow holds"},
		{"negative connect timeout", func(cfg *peer.Config) { cfg.ConnectTimeout = -1 }, "connect timeout is -1ns"},
		{"tiny idle timeout", func(cfg *peer.Config) { cfg.IdleTimeout = 1 }, "idle timeout is 1ns"},
		{"negative keep-alive", func(cfg *peer.Config) { cfg.KeepAlive = -time.Second }, "keep-alive is -1s"},
		{"negative user timeout", func(cfg *peer.Config) { cfg.TCPUserTimeout = -time.Second }, "tcp user timeout is -1s"},
		{"negative connections", func(cfg *peer.Config) { cfg.MaxConns = -1 }, "max conns is -1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := peer.Config{ID: "peer-a", URL: "http://127.0.0.1:9077", SenderID: senderID}
			test.change(&cfg)
			_, err := peer.New(cfg)
			if err == nil {
				t.Fatal("got nil, want an error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to contain %q", err, test.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error holds the api key: %v", err)
			}
		})
	}
}

func TestNewReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, err := peer.New(peer.Config{MaxConns: -1})
	for _, want := range []string{"id must be", "url is empty", "sender id is empty", "max conns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to contain %q", err, want)
		}
	}
}
