package refpeer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

func TestParseFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want refpeer.Faults
		err  string
	}{
		{text: "", want: nil},
		{text: "null", want: nil},
		{text: "[]", want: refpeer.Faults{}},
		{text: `{"mode":"down","count":2}`, want: refpeer.Faults{{Mode: refpeer.ModeDown, Count: 2}}},
		{text: `{"mode":"slow","delay":"500ms"}`, want: refpeer.Faults{{Mode: refpeer.ModeSlow, Delay: 500 * time.Millisecond}}},
		{
			text: `{"status":503,"retry_after":"5","probability":0.5}`,
			want: refpeer.Faults{{Mode: refpeer.ModeStatus, Status: 503, RetryAfter: "5", Probability: 0.5}},
		},
		{text: `{"skipped":3}`, want: refpeer.Faults{{Mode: refpeer.ModeSkipped, Skipped: 3}}},
		{text: `{"mode":"skipped"}`, want: refpeer.Faults{{Mode: refpeer.ModeSkipped, Skipped: 1}}},
		{text: `{"unsupported":2}`, want: refpeer.Faults{{Mode: refpeer.ModeUnsupported, Unsupported: 2}}},
		{
			text: `[{"mode":"drift","count":1},{"mode":"garbage"}]`,
			want: refpeer.Faults{{Mode: refpeer.ModeDrift, Count: 1}, {Mode: refpeer.ModeGarbage}},
		},
		{text: `{`, err: "parse faults"},
		{text: `{"mode":"down"} x`, err: "parse faults"},
		{text: `{}`, err: "unknown fault mode"},
		{text: `{"mode":"tired"}`, err: "unknown fault mode"},
		{text: `{"mode":"down","cuont":1}`, err: "unknown field"},
		{text: `{"mode":"slow"}`, err: "needs a delay"},
		{text: `{"mode":"slow","delay":"soon"}`, err: `write it as "500ms"`},
		{text: `{"mode":"zombie","delay":"11m"}`, err: "needs a delay"},
		{text: `{"mode":"status"}`, err: "needs a status"},
		{text: `{"status":200}`, err: "needs a status"},
		{text: `{"mode":"down","count":-1}`, err: "negative"},
		{text: `{"mode":"down","probability":1.5}`, err: "from 0 to 1"},
		{
			text: `{"status":413,"above_bytes":10,"above_items":2,"list":"links","error":"too large","location":"/x"}`,
			want: refpeer.Faults{{
				Mode: refpeer.ModeStatus, Status: 413, AboveBytes: 10, AboveItems: 2, List: "links", Error: "too large", Location: "/x",
			}},
		},
		{
			text: `{"mode":"quota","after":3,"reset_in":"2s"}`,
			want: refpeer.Faults{{Mode: refpeer.ModeQuota, After: 3, ResetIn: 2 * time.Second}},
		},
		{text: `{"mode":"refuse_id","id":"x"}`, want: refpeer.Faults{{Mode: refpeer.ModeRefuseID, ID: "x"}}},
		{text: `{"mode":"refuse_id"}`, err: "needs an id"},
		{text: `{"mode":"down","list":"memory"}`, err: "one of a push"},
		{text: `{"mode":"down","above_items":-1}`, err: "negative"},
		{text: `{"mode":"quota","after":-1}`, err: "negative"},
		{text: `{"mode":"quota","after":1,"count":1}`, err: "a count goes with"},
		{text: `{"mode":"quota","reset_in":"soon"}`, err: `reset_in "soon"`},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, err := refpeer.ParseFaults([]byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFaults covers what each fault answers and what it leaves applied.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		fault  string
		status int // 0: cut
		text   string
		header string // name=value
		rows   int    // of the two memories that are pushed
	}{
		{"down", `{"mode":"down"}`, 0, "", "", 0},
		{"slow", `{"mode":"slow","delay":"10ms"}`, 200, `"applied":2`, "", 2},
		{"zombie", `{"mode":"zombie","delay":"10ms"}`, 200, `"applied":2`, "", 2},
		{"status", `{"status":503,"retry_after":"5"}`, 503, "injected fault", "Retry-After=5", 0},
		{"status without retry-after", `{"status":500}`, 500, "injected fault", "Retry-After=", 0},
		{"lose answer", `{"mode":"lose_answer"}`, 0, "", "", 2},
		{"skipped", `{"skipped":1}`, 200, `"skipped":1`, "", 1},
		{"skipped, more than there are", `{"skipped":9}`, 200, `"skipped":2`, "", 0},
		{"unsupported", `{"unsupported":1}`, 200, `"unsupported_on_postgres":1`, "", 1},
		{"drift", `{"mode":"drift"}`, 200, `"ids":["drifted-to-another-id"]`, "", 2},
		{"garbage", `{"mode":"garbage"}`, 200, "<!doctype html>", "Content-Type=text/html; charset=utf-8", 0},
		{"quota", `{"mode":"quota"}`, 429, "QUOTA_EXCEEDED", "X-Quota-Limit=memories_per_day", 0},
		{"quota after one", `{"mode":"quota","after":1}`, 429, `"applied_before_refusal":1`, "X-Quota-Limit=memories_per_day", 1},
		{"status with a tag", `{"status":401,"error":"x_memory_sig_missing"}`, 401, `{"error":"x_memory_sig_missing"}`, "", 0},
		{"redirect", `{"status":307,"location":"http://elsewhere/"}`, 307, "", "Location=http://elsewhere/", 0},
		{"refuse an id", `{"mode":"refuse_id","id":"b"}`, 200, `"applied":1,"deleted":0,"noop":0,"skipped":1`, "", 1},
		{"a poisonous id", `{"status":400,"id":"b"}`, 400, "injected fault", "", 0},
		{"too many items", `{"status":413,"above_items":1}`, 413, "injected fault", "", 0},
		{"too many bytes", `{"status":413,"above_bytes":100}`, 413, "injected fault", "", 0},
		{"a list", `{"status":500,"list":"memories"}`, 500, "injected fault", "", 0},
		{"skipped of a list", `{"skipped":9,"list":"memories"}`, 200, `"skipped":2`, "", 0},
		{"unsupported of a list", `{"unsupported":1,"list":"memories"}`, 200, `"unsupported_on_postgres":1`, "", 1},
		{"down for an id", `{"mode":"down","id":"a"}`, 0, "", "", 0},
		{"ids", `{"mode":"ids"}`, 200, `"ids":["a","b"]`, "", 2},
		{"extra", `{"mode":"extra"}`, 200, `"x_unknown":{"nested"`, "", 2},
		{"truncated", `{"mode":"truncated"}`, 200, `{"dry_run":false,"applied":2`, "Content-Type=application/json", 2},
		{"gzip", `{"mode":"gzip"}`, 200, "\x1f\x8b", "Content-Encoding=gzip", 2},
		{"dry run", `{"mode":"dry_run"}`, 200, `{"dry_run":true,"applied":0,"deleted":0,"noop":2`, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			faults, err := refpeer.ParseFaults([]byte(tt.fault))
			if err != nil {
				t.Fatal(err)
			}
			peer := openPeer(t, refpeer.Config{Faults: faults})
			body := pushBody(t, []string{
				memoryJSON(t, fields{"id": "a", "title": "a"}), memoryJSON(t, fields{"id": "b", "title": "b"}),
			})
			a := send(t, peer, body)
			if a.status != tt.status || !strings.Contains(string(a.body), tt.text) {
				t.Errorf("got %d %s, want %d with %q", a.status, a.body, tt.status, tt.text)
			}
			if name, value, ok := strings.Cut(tt.header, "="); ok && a.header.Get(name) != value {
				t.Errorf("header %s: got %q, want %q", name, a.header.Get(name), value)
			}
			if got := len(rows(t, peer)); got != tt.rows {
				t.Errorf("got %d rows, want %d", got, tt.rows)
			}
			if got := peer.Counters().Faults[faults[0].Mode]; got != 1 {
				t.Errorf("counter of %s: got %d, want 1", faults[0].Mode, got)
			}
			if err := peer.SetFaults(nil); err != nil {
				t.Fatal(err)
			}
			if a := send(t, peer, body); a.status != http.StatusOK {
				t.Errorf("after clearing: got %d %s, want 200", a.status, a.body)
			}
		})
	}
}

func TestFaultCountAndOrder(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{
		{Mode: refpeer.ModeStatus, Status: 503, Count: 2}, {Mode: refpeer.ModeStatus, Status: 500, Count: 1},
	}})
	var got []int
	for range 4 {
		got = append(got, send(t, peer, emptyPush).status)
	}
	if want := []int{503, 503, 500, 200}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if left := peer.Faults(); len(left) != 0 {
		t.Errorf("got faults %v, want none left", left)
	}
}

func TestFaultProbability(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{{Mode: refpeer.ModeStatus, Status: 503, Probability: 0.5}}})
	seen := map[int]int{}
	for range 200 { // all alike: once in 2^199 runs
		seen[send(t, peer, emptyPush).status]++
	}
	if seen[200] == 0 || seen[503] == 0 {
		t.Errorf("got %v, want both 200 and 503", seen)
	}
}

// TestDownCutsEverything wants reads to be cut too, but not the way back.
func TestDownCutsEverything(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{{Mode: refpeer.ModeDown}}})
	for _, path := range []string{"/api/v1/health", "/api/v1/memories", "/api/v1/stats"} {
		if a := get(t, peer, path); a.status != 0 {
			t.Errorf("%s: got %d, want the connection cut", path, a.status)
		}
	}
	if a := get(t, peer, "/_ref/faults"); string(a.body) != `[{"mode":"down"}]`+"\n" {
		t.Errorf("got %d %q, want the fault", a.status, a.body)
	}
}

// TestWaitingFaults covers the faults that take time, on fake time: how long
// they wait, and what a client that gives up leaves behind.
func TestWaitingFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		fault   refpeer.Fault
		patient time.Duration // 0: for ever
		took    time.Duration
		status  int
		rows    int
	}{
		{"slow", refpeer.Fault{Mode: refpeer.ModeSlow, Delay: time.Minute}, 0, time.Minute, 200, 1},
		{"slow, client gives up", refpeer.Fault{Mode: refpeer.ModeSlow, Delay: time.Minute}, time.Second, time.Second, 0, 0},
		{"zombie, client gives up", refpeer.Fault{Mode: refpeer.ModeZombie, Delay: time.Minute}, time.Second, time.Minute, 200, 1},
		{"reorder, alone", refpeer.Fault{Mode: refpeer.ModeReorder, Delay: time.Minute}, 0, time.Minute, 200, 1},
		{"reorder, client gives up", refpeer.Fault{Mode: refpeer.ModeReorder, Delay: time.Minute}, time.Second, time.Minute, 200, 1},
		{"hang, client gives up", refpeer.Fault{Mode: refpeer.ModeHang}, time.Second, time.Second, 0, 0},
		{"hang, patient client", refpeer.Fault{Mode: refpeer.ModeHang}, 0, time.Minute, 504, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir, Faults: refpeer.Faults{tt.fault}})
				if err != nil {
					t.Fatal(err)
				}
				ctx := t.Context()
				if tt.patient > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.patient)
					defer cancel()
				}
				start := time.Now()
				a := serve(peer.Handler(), pushRequest(ctx, pushBody(t, []string{memoryJSON(t, nil)})))
				if took := time.Since(start); took != tt.took || a.status != tt.status {
					t.Errorf("got %d after %v, want %d after %v", a.status, took, tt.status, tt.took)
				}
				if got := len(rows(t, peer)); got != tt.rows {
					t.Errorf("got %d rows, want %d", got, tt.rows)
				}
				if err := peer.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestReorder wants a push to be overtaken by the next one.
func TestReorder(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{{Mode: refpeer.ModeReorder, Delay: 10 * time.Minute, Count: 1}}})
	done := make(chan answer, 1)
	go func() {
		done <- serve(peer.Handler(), pushRequest(t.Context(), pushBody(t, []string{memoryJSON(t, fields{"id": "first", "title": "1"})})))
	}()
	eventually(t, "a push in flight", func() bool { return peer.Counters().ConcurrentPushes == 1 })
	n := 0
	eventually(t, "the push is overtaken", func() bool {
		n++
		if a := send(t, peer, pushBody(t, []string{memoryJSON(t, fields{"id": "second", "title": "2"})})); a.status != http.StatusOK {
			t.Errorf("push %d: got %d, want 200", n, a.status)
		}
		return peer.Counters().ConcurrentPushes == 0
	})
	if first := <-done; first.status != http.StatusOK {
		t.Errorf("got %d, want it applied", first.status)
	}
	if got := len(rows(t, peer)); got != 2 {
		t.Errorf("got %d rows, want 2", got)
	}
	if got := peer.Counters().Faults[refpeer.ModeReorder]; got != 1 {
		t.Errorf("counter: got %d, want 1", got)
	}
}

// TestCloseEndsWaits wants closing a peer to end a fault that waits.
func TestCloseEndsWaits(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{{Mode: refpeer.ModeZombie, Delay: 10 * time.Minute}}})
	done := make(chan answer, 1)
	go func() { done <- serve(peer.Handler(), pushRequest(t.Context(), emptyPush)) }()
	eventually(t, "a push in flight", func() bool { return peer.Counters().ConcurrentPushes == 1 })
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.status != 0 {
		t.Errorf("got %d, want the connection cut", a.status)
	}
	if a := send(t, peer, pushBody(t, nil, "x")); a.status != http.StatusInternalServerError && a.status != 0 {
		t.Errorf("push to a closed peer: got %d, want 500 or a cut connection", a.status)
	}
	if err := peer.Close(); err != nil {
		t.Errorf("second close: got %v, want nil", err)
	}
}

// TestServe covers the real server: faults on the wire, counters, and stopping
// while a push hangs.
func TestServe(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- peer.Serve(ctx, listener) }()
	base := fmt.Sprintf("http://%s", listener.Addr())
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	do := func(method, path, body string) (int, string, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Peer-Id", sender)
		resp, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text), err
	}
	want := func(method, path, body string, status int, text string) {
		t.Helper()
		got, answer, err := do(method, path, body)
		if err != nil || got != status || !strings.Contains(answer, text) {
			t.Errorf("%s %s: got %d %q (%v), want %d with %q", method, path, got, answer, err, status, text)
		}
	}
	const push = "/api/v1/sync/push"
	want("POST", push, emptyPush, 200, `"applied":0`)
	want("POST", push, emptyPush, 200, `"applied":0`)
	want("GET", "/_ref/counters", "", 200, `"tcp_accepts":1`)
	want("PUT", "/_ref/faults", `{"mode":"down","count":1}`, 200, `"down"`)
	if _, _, err := do("POST", push, emptyPush); !errors.Is(err, io.EOF) {
		t.Errorf("down: got %v, want EOF", err)
	}
	want("GET", "/_ref/faults", "", 200, "[]")
	want("PUT", "/_ref/faults", `{"mode":"tired"}`, 400, "unknown fault mode")
	want("PUT", "/_ref/faults", `{"mode":"lose_answer"}`, 200, "lose_answer")
	if _, _, err := do("POST", push, pushBody(t, []string{memoryJSON(t, nil)})); !errors.Is(err, io.EOF) {
		t.Errorf("lose_answer: got %v, want EOF", err)
	}
	want("DELETE", "/_ref/faults", "", 200, "[]")
	want("GET", "/_ref/memories", "", 200, `"id":"m-1"`)
	want("GET", "/_ref/counters", "", 200, `"cut":2`)
	want("GET", push, "", 405, "")
	want("GET", "/nowhere", "", 404, "")

	want("PUT", "/_ref/faults", `{"mode":"hang"}`, 200, "hang")
	hung := make(chan error, 1)
	go func() {
		_, _, err := do("POST", push, emptyPush)
		hung <- err
	}()
	eventually(t, "a hanging push", func() bool { return peer.Counters().ConcurrentPushes == 1 })
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: got %v, want nil", err)
	}
	if err := <-hung; err == nil {
		t.Error("the hanging push was answered, want its connection cut")
	}
}

func TestServeFails(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := peer.Serve(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}
