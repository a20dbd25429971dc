package integration

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
)

// senderID is the agent id that the peers know the writer by.
const senderID = "ai:leader"

// setup says how a fleet is made. The zero value is three peers, a majority, and a fresh database.
type setup struct {
	peers      int
	writes     string
	ackTimeout time.Duration
	retries    int    // that one peer may get at once
	url        string // of a migrated database
	unsigned   bool   // the workers have no signing key
	admin      string // address of the workers' pages: one worker at a time; empty: none
	settings   string // further ones of the workers, as YAML

	zombies bool          // peers apply pushes that were given up
	zombie  time.Duration // for how long they may, as the workers are told; 0: a second

	// prepare changes what is not running yet: the peers' flags, the settings, files.
	prepare func(t *testing.T, f *fleet)
}

// fleet is a database, peers that run, and as many workers as the test starts.
type fleet struct {
	setup

	dir     string // settings, secrets, and the peers' data
	logs    string // kept where the test run keeps artifacts
	config  string // path of the workers' settings
	pool    *pgxpool.Pool
	peers   []*member
	workers []*process // that were started

	// riverClients are the ids under which the workers that live take jobs, where they are no processes of this fleet.
	riverClients func() []string

	secrets map[string]string
	told    bool // the state of a failed test has been printed
}

// payloadCanary is part of every memory's content: nothing of a payload may be in a job or a log.
const payloadCanary = "payload-canary-7d1f0c"

func newFleet(t *testing.T, s setup) *fleet {
	t.Helper()
	if s.peers == 0 {
		s.peers = 3
	}
	if s.writes == "" {
		s.writes = "majority"
	}
	if s.ackTimeout == 0 {
		s.ackTimeout = 2 * time.Second
	}
	if s.retries == 0 {
		s.retries = 4
	}
	if s.zombie == 0 {
		s.zombie = time.Second
	}
	if s.url == "" {
		s.url = pgtest.URL(t)
	}
	f := &fleet{setup: s, dir: t.TempDir(), logs: t.ArtifactDir()}
	f.openPool(t)
	f.makePeers(t)
	if s.prepare != nil {
		s.prepare(t, f)
	}
	f.writeConfig(t)
	for _, p := range f.peers {
		p.start(t)
	}
	return f
}

// launch starts a process of the fleet. If the test fails, the state of the fleet is printed before any of its processes is ended.
func (f *fleet) launch(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := launch(t, name, f.logs, env, args...)
	f.tellState(t)
	return p
}

// tellState makes a failed test print the state of the fleet before the processes that were started so far are ended.
func (f *fleet) tellState(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() && !f.told {
			f.told = true
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
			defer cancel()
			t.Log(f.state(ctx))
		}
	})
}

func (f *fleet) openPool(t *testing.T) {
	t.Helper()
	config, err := pgxpool.ParseConfig(f.url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 8
	f.pool, err = pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.pool.Close)

	f.secrets = map[string]string{}
	const shortest = 8 // a password such as "test" is in every log
	if password := config.ConnConfig.Password; len(password) >= shortest {
		f.secrets["database password"] = password
	}
}

// makePeers makes the peers' and the writer's credentials, and the peers, which do not run yet.
func (f *fleet) makePeers(t *testing.T) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	apiKey := "api-key-" + rand.Text()
	f.secrets["api key"] = apiKey
	f.secrets["signing seed, raw"] = string(private.Seed())
	f.secrets["signing seed, hex"] = hex.EncodeToString(private.Seed())
	f.secrets["signing seed, base64"] = base64.RawStdEncoding.EncodeToString(private.Seed())
	f.file(t, "api-key", []byte(apiKey))
	f.file(t, "seed", private.Seed())
	f.file(t, "keys/"+senderID+".pub", public)

	transport := &http.Transport{}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	for i := range f.setup.peers {
		f.peers = append(f.peers, &member{
			fleet: f, id: fmt.Sprintf("peer-%d", i+1), addr: freeAddr(t), apiKey: apiKey, client: client,
			flags: []string{"--api-key-file", f.path("api-key"), "--keys", f.path("keys"), "--require-enrollment"},
		})
	}
}

// writeConfig writes the workers' settings: short retries, and secrets in files.
func (f *fleet) writeConfig(t *testing.T) {
	t.Helper()
	f.file(t, "url", []byte(f.url))
	var b strings.Builder
	fmt.Fprintf(&b, "sender_id: %s\napi_key_file: %s\n", senderID, f.path("api-key"))
	if !f.unsigned {
		fmt.Fprintf(&b, "signing_key_file: %s\n", f.path("seed"))
	}
	fmt.Fprintf(&b, "database: {url_file: %s, max_conns: 12}\n", f.path("url"))
	fmt.Fprintf(&b, "quorum: {writes: %s, ack_timeout: %s}\n", f.writes, f.ackTimeout)
	fmt.Fprintf(&b, "retry: {initial: 100ms, max: 500ms, hold: 1s, workers: %d, zombie: %s}\n", f.retries, f.zombie)
	fmt.Fprintf(&b, "admin: {listen: %q}\nlog: {level: debug}\n%s\npeers:\n", f.admin, f.settings)
	for _, p := range f.peers {
		fmt.Fprintf(&b, "  - {id: %s, url: %s, allow: [127.0.0.0/8]}\n", p.id, p.url())
	}
	f.file(t, "worker.yaml", []byte(b.String()))
	f.config = f.path("worker.yaml")
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fleet) file(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), content, 0o600); err != nil { //nolint:gosec // in the test's own folder
		t.Fatal(err)
	}
}

// worker starts a worker, with faults ("point=kill@1") or without (""), and waits until it works or has killed itself.
func (f *fleet) worker(t *testing.T, faults string) *process {
	t.Helper()
	name := fmt.Sprintf("worker-%d", len(f.workers)+1)
	w := f.launch(t, name, []string{"FAULTS=" + faults}, "run", "--config", f.config)
	f.works(t, w, faults)
	return w
}

// works waits until a worker that was started works or, with faults, has killed itself.
func (f *fleet) works(t *testing.T, w *process, faults string) {
	t.Helper()
	f.workers = append(f.workers, w)
	until(t, w.name+" works", func() []string {
		if w.hasEnded() && faults == "" {
			t.Fatalf("%s ended: %s\n%s", w.name, w.cmd.ProcessState, w.tail(20))
		}
		return holds(w.hasEnded() || bytes.Contains(w.output(), []byte(`"worker started"`)), "it has not said so")
	})
}

// workerKilledAt starts a worker that kills itself at a point, and waits for its end.
func (f *fleet) workerKilledAt(t *testing.T, point string) {
	t.Helper()
	w := f.worker(t, point+"=kill@1")
	w.wait(t, settleTime)
	w.wantKilled(t)
}

// state is what a person wants to see when a test has failed.
func (f *fleet) state(ctx context.Context) string {
	var b strings.Builder
	for _, q := range []struct{ title, sql string }{
		{"undispatched", `select lane::text || ': ' || count(*) from undispatched group by lane order by lane limit 10`},
		{"batches", `select verdict || ' ' || reason || ': ' || count(*) || ', leased until ' || max(leased_until) from batches group by verdict, reason`},
		{"lagging", `select l::text from lagging l order by peer, lane limit 12`},
		{"peers", `select p::text from peers p order by id`},
		{"jobs", `select kind || ' ' || state || ': ' || count(*) from river_job group by kind, state order by 1`},
		{"live jobs", `select id || ' ' || kind || ' ' || state || ' ' || args || ' attempt ' || attempt || ' scheduled ' || scheduled_at
			|| ' errors ' || coalesce(errors[cardinality(errors)]::text, '') from river_job where finalized_at is null order by id desc limit 8`},
		{"now", `select clock_timestamp()::text`},
	} {
		fmt.Fprintf(&b, "%s:\n", q.title)
		lines, err := f.strings(ctx, q.sql)
		if err != nil {
			lines = []string{err.Error()}
		}
		fmt.Fprintln(&b, list(lines))
	}
	for _, p := range f.peers {
		c, err := p.counters(ctx)
		fmt.Fprintf(&b, "%s: %+v %v\n", p.id, c, err)
	}
	for _, w := range f.workers {
		fmt.Fprintf(&b, "%s, last lines:\n%s\n", w.name, w.tail(12))
	}
	return b.String()
}
