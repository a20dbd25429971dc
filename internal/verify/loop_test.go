package verify_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quorumbox/internal/metrics"
	"quorumbox/internal/verify"
)

// counter notes each comparison that was finished.
type counter struct {
	mu     sync.Mutex
	counts []map[string]int64
}

func (c *counter) Verified(_ string, differences map[string]int64, _ time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = append(c.counts, differences)
}

func (c *counter) all() []map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]map[string]int64{}, c.counts...)
}

// lockedBuffer is written by a loop and read when it has ended.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func (w *world) loop(c verify.Counter, log *lockedBuffer) verify.Loop {
	return verify.Loop{
		Pool: w.pool, Peers: map[string]verify.Reader{"a": w.client, "unregistered": w.client, "paused": w.client}, Every: 10 * time.Millisecond,
		Settle: time.Millisecond, Elect: 10 * time.Millisecond, Options: quick(), Logger: slog.New(slog.NewTextHandler(log, nil)), Counter: c,
	}
}

// start runs a loop until stop is called, which returns how it ended.
func start(t *testing.T, l verify.Loop) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel(errStopped)
		return <-done
	})
}

var errStopped = errors.New("stopped")

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("did not happen within 20s: %s", what)
		}
	}
}

func TestLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`insert into peers (id, state) values ('paused', 'paused')`)
	w.store("m-1", nil)
	w.store("m-2", nil)
	w.mirror()
	first, second := &counter{}, &counter{}
	var log lockedBuffer
	stop := start(t, w.loop(first, &log))
	eventually(t, "the first one has compared twice", func() bool { return len(first.all()) > 1 })
	stopSecond := start(t, w.loop(second, &log))
	w.push("deletions", `"m-2"`)
	eventually(t, "it sees what is missing", func() bool { return first.all()[len(first.all())-1]["missing"] == 1 })
	if n := len(second.all()); n > 0 {
		t.Errorf("two compare at once: %d", n)
	}
	if err := stop(); !errors.Is(err, errStopped) {
		t.Errorf("got %v, want the cause", err)
	}
	eventually(t, "the second one takes over", func() bool { return len(second.all()) > 0 })
	if err := stopSecond(); !errors.Is(err, errStopped) {
		t.Errorf("got %v, want the cause", err)
	}
	if n := len(w.strings(`select key from repairs`)); n > 0 {
		t.Errorf("got %d repairs that nobody asked for", n)
	}
	for _, want := range []string{`level=INFO msg="peer compared with the store" peer=a memories=2`, `level=WARN msg="peer differs from the store" peer=a memories=2`, "missing=1"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "unregistered") || strings.Contains(log.String(), "paused") {
		t.Errorf("a peer that is not active was compared:\n%s", log.String())
	}
}

func TestLoopRepairs(t *testing.T) {
	t.Parallel()
	w := furnished(t)
	w.push("deletions", `"m-3"`)
	w.push("memories", strings.ReplaceAll(w.strings(`select memory_json(m)::text from memories m where id = 'm-4'`)[0], `m-4`, `unknown`))
	c := &counter{}
	l := w.loop(c, &lockedBuffer{})
	l.Options.Repair = verify.On
	stop := start(t, l)
	eventually(t, "it has compared", func() bool { return len(c.all()) > 0 })
	_ = stop()
	if list := w.strings(`select key || ' ' || method from repairs`); len(list) != 1 || list[0] != "m-3 store" {
		t.Errorf("got repairs %v, want that of m-3 alone: what is unknown stays", list)
	}
}

// A peer that cannot be read, and a connection that is lost, are logged and tried again.
func TestLoopGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store("m-1", nil)
	w.mirror()
	c := &counter{}
	var log lockedBuffer
	l := w.loop(c, &log)
	l.Peers["a"] = &between{Reader: w.client}
	stop := start(t, l)
	eventually(t, "it has compared", func() bool { return len(c.all()) > 0 })
	w.exec(`select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.database = (select oid from pg_database where datname = current_database())`)
	eventually(t, "the loss is logged", func() bool { return strings.Contains(log.String(), "comparison in the background interrupted") })
	before := len(c.all())
	eventually(t, "it compares again", func() bool { return len(c.all()) > before })
	_ = stop()
}

// Every kind has a series of its own.
func TestKindsAreCounted(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.SetPeers([]string{"a"})
	count := func() int {
		n, err := testutil.GatherAndCount(m.Registry(), "quorumbox_verify_differences_total")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	counts := map[string]int64{"unsettled": 1}
	for _, kind := range verify.Kinds() {
		counts[string(kind)] = 2
	}
	m.Verified("a", counts, time.Unix(1000, 0))
	if before != len(counts) || count() != before {
		t.Errorf("got %d series and %d afterwards, want one for each of %d kinds", before, count(), len(counts))
	}
	m.Verified("nobody", map[string]int64{"new": 1}, time.Unix(1000, 0))
	if count() != before+1 {
		t.Errorf("got %d series, want one more, which is other", count())
	}
}
