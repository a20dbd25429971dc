//go:build unix

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/migrations"
)

// senderID is the agent that signs the pushes.
const senderID = "bench"

// stack is what one measurement runs against: a migrated database, peers, and a worker if there is one.
type stack struct {
	*bench

	url    string
	pool   *pgxpool.Pool
	dir    string
	peers  []*process
	urls   []string // of the peers
	worker *process // nil: none
}

// withStack gives do a fresh stack for the scenario and takes it down afterwards.
func (b *bench) withStack(ctx context.Context, scenario Scenario, do func(*stack) error) error {
	return b.withDatabase(ctx, func(url string) (err error) {
		s := &stack{bench: b, url: url}
		defer s.close(ctx)
		if s.dir, err = os.MkdirTemp(b.dir, string(scenario)+"-"); err != nil {
			return err
		}
		if _, err = migrations.Up(ctx, url); err != nil {
			return err
		}
		if s.pool, err = openPool(ctx, url, b.cfg.Writers+spareConns); err != nil {
			return err
		}
		if scenario == Bare {
			return do(s)
		}
		for i := range b.cfg.Peers {
			if err := s.startPeer(ctx, i); err != nil {
				return err
			}
		}
		if err := s.startWorker(scenario); err != nil {
			return err
		}
		return do(s)
	})
}

// spareConns are the connections beside the writers': for looking whether all is done.
const spareConns = 2

func openPool(ctx context.Context, url string, conns int) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	cfg.MaxConns = int32(conns) //nolint:gosec // bounded by Config.Validate
	cfg.ConnConfig.RuntimeParams["application_name"] = "quorumbox bench"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return pool, nil
}

func withDatabaseName(serverURL, name string) (string, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("the database must be given as a URL: postgres://user@host:port/name") // err may hold the password
	}
	u.Path = "/" + name
	return u.String(), nil
}

func (s *stack) close(ctx context.Context) {
	if s.worker != nil {
		s.worker.stop(ctx)
	}
	for _, p := range s.peers {
		p.stop(ctx)
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // inside the run's folder, whose removal is checked
	}
}

func peerID(i int) string { return "p" + strconv.Itoa(i+1) }

func (s *stack) startPeer(ctx context.Context, i int) error {
	p, address, err := s.spawnPeer(ctx, i, "127.0.0.1:0")
	if p != nil {
		s.peers = append(s.peers, p)
		s.urls = append(s.urls, address)
	}
	return err
}

// restartPeer starts a peer that was stopped again, where it was.
func (s *stack) restartPeer(ctx context.Context, i int) error {
	p, _, err := s.spawnPeer(ctx, i, strings.TrimPrefix(s.urls[i], "http://"))
	if p != nil {
		s.peers[i] = p
	}
	return err
}

// spawnPeer returns a peer that listens, and its URL. On an error the peer may be nil or not.
func (s *stack) spawnPeer(ctx context.Context, i int, listen string) (*process, string, error) {
	id := peerID(i)
	args := []string{"peer", "--listen", listen, "--id", "ref:" + id, "--data", filepath.Join(s.dir, id)}
	if s.keysDir != "" {
		args = append(args, "--keys", s.keysDir, "--require-enrollment")
	}
	p, line, err := spawn{program: s.cfg.Program, args: args, log: filepath.Join(s.dir, id+".log")}.startWithLine(ctx, "peer "+id)
	if err != nil {
		return nil, "", err
	}
	_, address, ok := strings.Cut(line, "listening on ")
	if !ok {
		return p, "", fmt.Errorf("peer %s said %q instead of its address", id, line)
	}
	return p, strings.TrimSpace(address), nil
}

// startWorker starts the program under test. The settings are the defaults, but for what the scenario is about.
func (s *stack) startWorker(scenario Scenario) error {
	type peer struct {
		ID          string   `json:"id"`
		URL         string   `json:"url"`
		Allow       []string `json:"allow"`
		Connections int      `json:"connections,omitzero"`
	}
	settings := map[string]any{
		"sender_id": senderID,
		"admin":     map[string]any{"listen": ""},
		"log":       map[string]any{"level": "warn", "format": "text"},
	}
	args := []string{"run"}
	var connections int
	if scenario == Plain {
		args = []string{"bench", "plain-worker"}
		connections = plainConnections
	}
	peers := make([]peer, len(s.urls))
	for i, u := range s.urls {
		peers[i] = peer{ID: peerID(i), URL: u, Allow: []string{"127.0.0.0/8"}, Connections: connections}
	}
	settings["peers"] = peers
	if s.signingKey != "" {
		settings["signing_key_file"] = s.signingKey
	}
	text, err := json.MarshalIndent(settings, "", "  ") // JSON is YAML
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "worker.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	s.worker, err = spawn{
		program: s.cfg.Program, args: append(args, "--config", path),
		env: []string{"DATABASE_URL=" + s.url}, log: filepath.Join(s.dir, "worker.log"),
	}.start("worker")
	return err
}

// verify returns an error unless every peer holds exactly the memories of the table, by id.
func (s *stack) verify(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `select id from memories`)
	if err != nil {
		return fmt.Errorf("read the writer's rows: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read the writer's rows: %w", err)
	}
	want := make(map[string]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	client := &http.Client{Transport: &http.Transport{}} // the peers of this run: nothing that the environment says applies
	defer client.CloseIdleConnections()
	for i := range s.urls {
		if err := s.verifyPeer(ctx, client, s.urls[i], want); err != nil {
			return fmt.Errorf("peer %s: %w", peerID(i), err)
		}
	}
	return nil
}

func (s *stack) verifyPeer(ctx context.Context, client *http.Client, base string, want map[string]bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/_ref/memories", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s when asked for its rows", answer.Status)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxLine)
	count := 0
	for lines.Scan() {
		var row struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return fmt.Errorf("read its rows: %w", err)
		}
		if !want[row.ID] {
			return fmt.Errorf("holds a row that was never committed: %s", row.ID)
		}
		count++
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read its rows: %w", err)
	}
	if count != len(want) {
		return fmt.Errorf("holds %d of the %d rows that were committed: the measurement is not valid", count, len(want))
	}
	return nil
}

const (
	// drainPatience bounds the wait for the last entry to reach all peers.
	drainPatience = 10 * time.Minute

	// drainPoll is how often that is looked at: it adds half of it to a tail, on average.
	drainPoll = 10 * time.Millisecond
)

// drained waits until the query says that nothing is left to do.
func (s *stack) drained(ctx context.Context, query string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainPatience,
		fmt.Errorf("not everything had reached every peer %s after the last write: %w", drainPatience, context.DeadlineExceeded))
	defer cancel()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		if err := s.worker.alive(); err != nil {
			return err
		}
		var done bool
		if err := s.pool.QueryRow(ctx, query).Scan(&done); err != nil {
			return fmt.Errorf("look whether all is done: %w", errors.Join(err, context.Cause(ctx)))
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the worker's log ends: %s", context.Cause(ctx), s.worker.logEnd())
		case <-tick.C:
		}
	}
}
