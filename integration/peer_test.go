package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// member is one peer: a process that can be killed and started again on the same port and data.
type member struct {
	fleet  *fleet
	id     string
	addr   string
	flags  []string
	apiKey string
	client *http.Client
	proc   *process
}

func (p *member) url() string { return "http://" + p.addr }

// start starts the peer and waits until it answers.
func (p *member) start(t *testing.T) {
	t.Helper()
	args := append([]string{"peer", "--id", "ref:" + p.id, "--listen", p.addr, "--data", p.fleet.path(p.id)}, p.flags...)
	p.proc = p.fleet.launch(t, p.id, nil, args...)
	until(t, p.id+" answers", func() []string {
		if p.proc.hasEnded() {
			t.Fatalf("%s ended: %s\n%s", p.id, p.proc.cmd.ProcessState, p.proc.tail(20))
		}
		_, err := p.counters(t.Context())
		return problem(err)
	})
}

// kill ends the peer with SIGKILL. Its data stays.
func (p *member) kill(t *testing.T) {
	t.Helper()
	p.proc.kill(t)
	p.client.CloseIdleConnections()
}

// setFaults makes the peer misbehave, as the JSON of /_ref/faults says. Empty heals it.
func (p *member) setFaults(t *testing.T, faults string) {
	t.Helper()
	method := http.MethodPut
	if faults == "" {
		method = http.MethodDelete
	}
	body, err := p.call(t.Context(), method, "/_ref/faults", faults)
	if err != nil {
		t.Fatal(err)
	}
	_ = body.Close()
}

// counters is the part of /_ref/counters that the tests look at. A peer counts from its start.
type counters struct {
	Pushes map[string]int64 `json:"pushes"` // by status, or "cut"
	Faults map[string]int64 `json:"faults"` // by mode

	Concurrent int64 `json:"concurrent_pushes"`
}

// total is how many requests the peer got.
func (c counters) total() (n int64) {
	for _, k := range c.Pushes {
		n += k
	}
	return n
}

func (p *member) counters(ctx context.Context) (counters, error) {
	var c counters
	err := p.lines(ctx, "/_ref/counters", func(line []byte) error { return json.Unmarshal(line, &c) })
	return c, err
}

// wantFault checks that the peer's fault has happened (C10).
func (p *member) wantFault(t *testing.T, mode string) {
	t.Helper()
	c, err := p.counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.Faults[mode] == 0 {
		t.Fatalf("%s: the fault %q never happened: %+v", p.id, mode, c)
	}
}

// applied is one line of a peer's apply log.
type applied struct {
	Seq       int64     `json:"seq"`
	At        time.Time `json:"at"`
	Push      int64     `json:"push"`
	Op        string    `json:"op"`
	ID        string    `json:"id"`
	Namespace string    `json:"namespace"`
	UpdatedAt string    `json:"updated_at"`
	Result    string    `json:"result"`
	Reason    string    `json:"reason"`
	Target    string    `json:"target"`
	Relation  string    `json:"relation"`
	PeerID    string    `json:"peer_id"`
	Nonce     string    `json:"nonce"`

	Credential string `json:"credential"`
}

// log is everything that the peer has applied, in order.
func (p *member) log(ctx context.Context) ([]applied, error) { return p.logAfter(ctx, 0) }

// logAfter is what the peer has applied after the entry of that number.
func (p *member) logAfter(ctx context.Context, seq int64) ([]applied, error) {
	var all []applied
	err := p.lines(ctx, fmt.Sprintf("/_ref/log?after=%d", seq), func(line []byte) error {
		var a applied
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		all = append(all, a)
		return nil
	})
	return all, err
}

// memories are the peer's rows by id.
func (p *member) memories(ctx context.Context) (map[string]row, error) {
	rows := map[string]row{}
	err := p.lines(ctx, "/_ref/memories", func(line []byte) error {
		r, err := parseRow(line)
		if err == nil {
			rows[r.id()] = r
		}
		return err
	})
	return rows, err
}

// lines calls each with every line of an answer.
func (p *member) lines(ctx context.Context, path string, each func(line []byte) error) error {
	body, err := p.call(ctx, http.MethodGet, path, "")
	if err != nil {
		return err
	}
	defer body.Close()
	scanner := bufio.NewScanner(body)
	scanner.Buffer(nil, 4<<20)
	for scanner.Scan() {
		if err := each(scanner.Bytes()); err != nil {
			return fmt.Errorf("%s: %s: %w", p.id, path, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("%s: %s: %w", p.id, path, err)
	}
	return nil
}

func (p *member) call(ctx context.Context, method, path, body string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url()+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Api-Key", p.apiKey)
	res, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.id, err)
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("%s: %s %s: %s", p.id, method, path, res.Status)
	}
	return res.Body, nil
}

// freeAddr finds a port outside of the range from which systems take ports for outgoing connections, so that nothing takes it while
// its peer is down.
func freeAddr(t *testing.T) string {
	t.Helper()
	const low, high = 15000, 30000
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(low+rand.IntN(high-low))) //nolint:gosec // no secret
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port found")
	return ""
}

// problem is an error as a problem for until.
func problem(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}
