package integration

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// wantPages checks that the pages ask for the login that the project tells, and that health is told to anybody.
func (c *composition) wantPages(t *testing.T) {
	t.Helper()
	if text := c.login(t); !strings.Contains(text, "user quorumbox, password "+c.secrets["ui password"]+"\n") {
		t.Errorf("the login is not told: %q", text)
	}
	for _, test := range []struct {
		path, password string
		want           int
	}{
		{"/api/status", c.secrets["ui password"], http.StatusOK},
		{"/river/", c.secrets["ui password"], http.StatusOK},
		{"/api/status", "", http.StatusUnauthorized},
		{"/river/", "another", http.StatusUnauthorized},
		{"/metrics", "", http.StatusUnauthorized},
		{"/readyz", "", http.StatusOK},
		{"/livez", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.address(t, "ui", "9080")+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.password != "" {
			req.SetBasicAuth("quorumbox", test.password)
		}
		res, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != test.want {
			t.Errorf("%s with password %q: got %s, want %d", test.path, test.password, res.Status, test.want)
		}
	}
}

// wantMetrics checks, from where Prometheus would be, that the workers' metrics are read with the token that is for them, which opens nothing else,
// and with no other.
func (c *composition) wantMetrics(t *testing.T) {
	t.Helper()
	for _, test := range []struct{ path, token, want, text string }{
		{"/metrics", "metrics token", "200", "quorumbox_batches_undecided"},
		{"/api/status", "metrics token", "401", ""},
		{"/api/status", "admin token", "200", "peer-1"},
		{"/metrics", "api key", "401", ""},
	} {
		const script = `exec 3<>/dev/tcp/worker/9080
			printf 'GET %s HTTP/1.0\r\nHost: worker:9080\r\nAuthorization: Bearer %s\r\n\r\n' "$1" "$2" >&3
			cat <&3`
		got := c.docker(t, "run", "--rm", "--network", c.project+"_pages", "--entrypoint", "bash", "postgres:17", "-c", script, "-",
			test.path, c.secrets[test.token])
		status, _, _ := strings.Cut(got, "\r\n")
		if !strings.Contains(status, " "+test.want+" ") || !strings.Contains(got, test.text) {
			t.Errorf("%s with the %s: got %q, want %s and %q", test.path, test.token, status, test.want, test.text)
		}
	}
}

// wantStory checks that the command that newcomers are told shows memories that reach every peer.
func (c *composition) wantStory(t *testing.T) {
	t.Helper()
	text := c.composeWithin(t, 2*commandTimeout, "run", "--rm", "-T", "story", "story", "--pace", "1s", "--wait", "40s")
	for _, want := range []string{"quorum met for 360, not met for 0", "in step", "All 3 peers equal the store, field by field."} {
		if !strings.Contains(text, want) {
			t.Errorf("the story does not say %q:\n%s", want, text)
		}
	}
}

// wantQuietLogs checks that no container has logged a secret or the content of a memory.
func (c *composition) wantQuietLogs(t *testing.T, content string) {
	t.Helper()
	logs := append(c.gone, c.compose(t, "logs", "--no-color")...)
	if !bytes.Contains(logs, []byte(`"worker started"`)) {
		t.Error("the logs do not tell of any worker")
	}
	if bytes.Contains(logs, []byte(content)) {
		t.Error("the content of a memory is in the logs")
	}
	if i := bytes.Index(logs, []byte("permission denied")); i >= 0 {
		t.Errorf("a role has too few rights: %s", logs[max(0, i-200):min(len(logs), i+200)])
	}
	for name, secret := range c.secrets {
		if bytes.Contains(logs, []byte(secret)) {
			t.Errorf("the %s is in the logs", name)
		}
	}
}

// runningWorkers are the ids of the workers' containers that run, sorted.
func (c *composition) runningWorkers(t *testing.T) []string {
	t.Helper()
	ids := strings.Fields(c.compose(t, "ps", "--status", "running", "--quiet", "worker"))
	slices.Sort(ids)
	return ids
}
