package integration

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// startComposition builds the image, starts the project under a name and ports of its own, and waits until it works. The project and its
// volumes are gone when the test has ended, however that ends; the image stays, for the next build.
func startComposition(t *testing.T, c composition) *composition {
	t.Helper()
	requireDocker(t)
	c.project = "quorumbox-test-" + strings.ToLower(rand.Text()[:8])
	c.image = cmp.Or(c.image, "quorumbox:test")
	c.env = append(os.Environ(), "QUORUMBOX_IMAGE="+c.image, "QUORUMBOX_VERSION=test", "QUORUMBOX_QUORUM__WRITES=majority", "QUORUMBOX_LOG__LEVEL=debug")
	for _, name := range []string{"POSTGRES", "PEER_1", "PEER_2", "PEER_3", "UI"} {
		c.env = append(c.env, "QUORUMBOX_"+name+"_PORT="+cmp.Or(c.ports[name], "0")) // 0: another one after each start
	}
	c.removeAtEnd(t)
	begin := time.Now()
	c.composeWithin(t, buildTimeout, "build")
	t.Logf("the image is built after %s", time.Since(begin).Round(time.Second))
	begin = time.Now()
	c.composeWithin(t, startTimeout, "up", "--detach", "--wait")
	t.Logf("%s is up and healthy after %s", c.project, time.Since(begin).Round(time.Second))

	c.readSecrets(t)
	c.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	database := url.URL{
		Scheme: "postgres", User: url.UserPassword("quorumbox", c.secrets["database password"]),
		Host: c.address(t, "postgres", "5432"), Path: "quorumbox",
	}
	pool, err := pgxpool.New(t.Context(), database.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	c.pool = pool
	return &c
}

// readSecrets reads what must be in no log, environment and table.
func (c *composition) readSecrets(t *testing.T) {
	t.Helper()
	c.secrets = map[string]string{
		"api key":           c.login(t, "api-key"),
		"database password": c.login(t, "database-password"),
		"ui password":       c.login(t, "ui-password"),
	}
	tokens := strings.Fields(c.compose(t, "run", "--rm", "--no-deps", "-T", "--user", "65532", "--entrypoint", "sh", "secrets", "-c",
		`cd /secrets && for f in worker/admin-token worker/metrics-token owner/worker-password owner/story-password; do cat $f; echo; done`))
	names := []string{"admin token", "metrics token", "worker's password", "story's password"}
	if len(tokens) != len(names) {
		t.Fatalf("got %d secrets, want %d", len(tokens), len(names))
	}
	for i, name := range names {
		c.secrets[name] = tokens[i]
	}
	for name, secret := range c.secrets {
		want := 64
		if name == "ui password" {
			want = 24 // people type it
		}
		if len(secret) != want {
			t.Fatalf("the %s has %d characters, want %d", name, len(secret), want)
		}
	}
}

// login is what `docker compose run --rm login` prints.
func (c *composition) login(t *testing.T, args ...string) string {
	t.Helper()
	return c.compose(t, append([]string{"run", "--rm", "-T", "login"}, args...)...)
}
