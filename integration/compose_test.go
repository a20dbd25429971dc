package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// composeCanary is in the content of every memory, and must be in no log.
const composeCanary = "compose-canary-5b9e21"

// The project of docker-compose.yml as users start it: memories replicate while a worker is killed and a peer is stopped, and every peer
// holds them all in the end.
//
// Not parallel: it builds an image, which would disturb tests that measure.
func TestCompose(t *testing.T) { //nolint:paralleltest // see above
	c := startComposition(t, composition{})
	c.wantHardened(t)
	c.wantKeysAsked(t)
	c.wantPages(t)
	c.wantMetrics(t)

	entries := c.store(t, 4)
	c.await(t, entries)

	workers := c.containers(t, "worker")
	if len(workers) != 2 {
		t.Fatalf("got %d workers, want 2", len(workers))
	}
	entries = append(entries, c.store(t, 1)...)
	c.docker(t, "kill", "--signal", "KILL", workers[0])
	entries = append(entries, c.store(t, 1)...)
	c.compose(t, "stop", "peer-3")
	entries = append(entries, c.store(t, 2)...)
	c.await(t, entries)
	c.wantLagging(t, "peer-3")

	c.docker(t, "start", workers[0])
	c.compose(t, "start", "peer-3")
	entries = append(entries, c.store(t, 2)...)
	c.await(t, entries)

	until(t, "no peer lags", func() []string {
		n, err := c.lagging(t.Context())
		return slices.Concat(problem(err), holds(n == 0, fmt.Sprintf("%d lanes lag", n)))
	})
	want := c.stored(t)
	if len(want) != 200 {
		t.Errorf("the database has %d memories, want 200", len(want))
	}
	for _, peer := range []string{"peer-1", "peer-2", "peer-3"} {
		if diff := cmp.Diff(c.memories(t, peer), want); diff != "" {
			t.Errorf("%s differs from the writer (-peer +writer):\n%s", peer, diff)
		}
	}
	c.wantStory(t)
	c.wantQuietLogs(t, composeCanary)
	if got := strings.Count(c.compose(t, "logs", "--no-color", "worker"), `"worker started"`); got != 3 {
		t.Errorf("got %d starts of workers in the logs, want 3: two, and the one that was killed", got)
	}
}

// store commits n transactions of 20 new memories each, and returns their entries.
func (c *composition) store(t *testing.T, n int) []outbox.EntryID {
	t.Helper()
	var entries []outbox.EntryID
	for range n {
		list := make([]outbox.Memory, 20)
		for i := range list {
			id := fmt.Sprintf("compose-%d", c.written)
			c.written++
			list[i] = outbox.Memory{
				ID: id, Namespace: fmt.Sprintf("team/%d", c.written%7), Tier: "long", Title: "title of " + id,
				Content: composeCanary + " of " + id, Metadata: []byte(`{"scope":"collective"}`),
			}
		}
		err := pgx.BeginFunc(t.Context(), c.pool, func(tx pgx.Tx) error {
			stored, err := outbox.StoreMany(t.Context(), tx, list)
			for _, s := range stored {
				entries = append(entries, s.Entry)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return entries
}

// await checks that every entry reached its quorum.
func (c *composition) await(t *testing.T, entries []outbox.EntryID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	v, err := outbox.Await(ctx, c.pool, entries...)
	if err != nil {
		t.Fatal(err)
	}
	if !v.IsMet() || v.Entries() != len(entries) {
		t.Errorf("got verdict %+v, want %d entries met", v, len(entries))
	}
}

// lagging is how many lanes of how many peers lag.
func (c *composition) lagging(ctx context.Context) (n int, err error) {
	err = c.pool.QueryRow(ctx, `select count(*) from lagging`).Scan(&n)
	return n, err
}

// wantLagging checks that the fault has happened: the peer, and no other, misses something.
func (c *composition) wantLagging(t *testing.T, peer string) {
	t.Helper()
	until(t, "only "+peer+" lags", func() []string {
		rows, err := c.pool.Query(t.Context(), `select distinct peer from lagging`)
		if err != nil {
			return problem(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		return slices.Concat(problem(err), holds(slices.Equal(got, []string{peer}), fmt.Sprintf("these lag: %v", got)))
	})
}

// composeMemory is what the test compares of a memory.
type composeMemory struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Title     string `json:"title"`
	Content   string `json:"content"`
	UpdatedAt string `json:"updated_at"`
	Version   int64  `json:"version"`
}

func (c *composition) stored(t *testing.T) []composeMemory {
	t.Helper()
	rows, err := c.pool.Query(t.Context(), `
		select id, namespace, title, content,
			to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00', version
		from memories
		order by id collate "C"`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[composeMemory])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// memories are the rows of a peer, ordered by id.
func (c *composition) memories(t *testing.T, peer string) []composeMemory {
	t.Helper()
	res := c.get(t, peer, c.secrets["api key"])
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: got %s, want 200", peer, res.Status)
	}
	var list []composeMemory
	scanner := bufio.NewScanner(res.Body)
	for scanner.Scan() {
		var m composeMemory
		if err := json.Unmarshal(scanner.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", peer, err)
		}
		list = append(list, m)
	}
	if err := scanner.Err(); err != nil {
		t.Fatalf("%s: %v", peer, err)
	}
	return list
}

// get asks a peer for its memories. The caller closes the body.
func (c *composition) get(t *testing.T, peer, key string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.address(t, peer, "9077")+"/_ref/memories", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", key)
	res, err := c.client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", peer, err)
	}
	return res
}

// wantKeysAsked checks that the peers, which listen on all addresses of their containers, answer nobody without the key.
func (c *composition) wantKeysAsked(t *testing.T) {
	t.Helper()
	for _, peer := range []string{"peer-1", "peer-2", "peer-3"} {
		res := c.get(t, peer, "")
		_ = res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s, without an api key: got %s, want 401", peer, res.Status)
		}
	}
}

// wantHardened checks what each container may do.
func (c *composition) wantHardened(t *testing.T) {
	t.Helper()
	// What the image of Postgres needs to start as root; everything else has none.
	capabilities := map[string][]string{
		"postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"},
		"secrets":  {"CHOWN"},
	}
	seen := map[string]int{}
	for _, got := range c.inspect(t) {
		service := got.Config.Labels["com.docker.compose.service"]
		seen[service]++
		if capabilities[service] == nil && got.Config.User != "65532:65532" {
			t.Errorf("%s runs as user %q, want 65532:65532", service, got.Config.User)
		}
		host := got.HostConfig
		added := slices.Sorted(slices.Values(host.CapAdd))
		for i, name := range added {
			added[i] = strings.TrimPrefix(name, "CAP_")
		}
		if !slices.Equal(added, capabilities[service]) || !slices.Equal(host.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: got capabilities %v without %v, want %v without ALL", service, added, host.CapDrop, capabilities[service])
		}
		if !host.ReadonlyRootfs || host.Privileged || !slices.Contains(host.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: want a read-only root, no privileges and none to come: %+v", service, host)
		}
		for port, bindings := range host.PortBindings {
			for _, b := range bindings {
				if b.HostIP != "127.0.0.1" {
					t.Errorf("%s publishes %s on %q, want 127.0.0.1 only", service, port, b.HostIP)
				}
			}
		}
		for _, variable := range got.Config.Env {
			for name, secret := range c.secrets {
				if strings.Contains(variable, secret) {
					t.Errorf("%s has the %s in its environment", service, name)
				}
			}
		}
	}
	want := map[string]int{
		"secrets": 1, "postgres": 1, "migrate": 1, "roles": 1, "worker": 2, "ui": 1, "peer-1": 1, "peer-2": 1, "peer-3": 1,
	}
	if diff := cmp.Diff(seen, want); diff != "" {
		t.Errorf("containers of each service (-got +want):\n%s", diff)
	}
}
