package refpeer_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"quorumbox/internal/refpeer"
)

// victimDir tells the test binary to be a peer that will be killed.
const victimDir = "REFPEER_TEST_VICTIM_DIR"

// runAsVictim serves a peer until the process is killed, if the environment
// asks for it.
func runAsVictim() bool {
	dir := os.Getenv(victimDir)
	if dir == "" {
		return false
	}
	ctx := context.Background()
	peer, err := refpeer.Open(ctx, refpeer.Config{DataDir: dir})
	if err != nil {
		panic(err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	if err := peer.Serve(ctx, listener); err != nil {
		panic(err)
	}
	return true
}

// startVictim starts a peer in a process of its own and returns it and the
// address for pushes.
func startVictim(t *testing.T, dir string) (victim *exec.Cmd, url string) {
	t.Helper()
	victim = exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // G204: this very test binary
	victim.Env = append(os.Environ(), victimDir+"="+dir)
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("peer did not start: %v", err)
	}
	return victim, strings.TrimSpace(line) + "/api/v1/sync/push"
}

// TestKill kills a peer under load, again and again, and wants every answered
// push back: in the state and in the log, whole, and its log without a gap.
func TestKill(t *testing.T) {
	t.Parallel()
	const rounds, senders, batch = 4, 3, 5
	dir := t.TempDir()
	var mu sync.Mutex
	answered := map[string]bool{}
	total := 0
	for round := range rounds {
		victim, url := startVictim(t, dir)
		client := &http.Client{Transport: &http.Transport{}}
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for n := 0; ; n++ {
					var memories []string
					var ids []string
					for i := range batch {
						id := fmt.Sprintf("r%d-s%d-n%d-i%d", round, s, n, i)
						ids = append(ids, id)
						memories = append(memories, memoryJSON(t, fields{"id": id, "title": id}))
					}
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url,
						bytes.NewReader([]byte(pushBody(t, memories))))
					if err != nil {
						t.Error(err)
						return
					}
					r.Header.Set("X-Peer-Id", sender)
					resp, err := client.Do(r)
					if err != nil {
						return // killed
					}
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					if err != nil || resp.StatusCode != http.StatusOK {
						return
					}
					mu.Lock()
					for _, id := range ids {
						answered[id] = true
					}
					mu.Unlock()
				}
			})
		}
		eventually(t, "load", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(answered) >= total+1000
		})
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		_ = victim.Wait() // killed on purpose
		client.CloseIdleConnections()
		total = len(answered)
	}

	peer := openPeer(t, refpeer.Config{DataDir: dir})
	stored := map[string]bool{}
	for _, row := range rows(t, peer) {
		stored[row["id"].(string)] = true
	}
	logged := map[string]bool{}
	perPush := map[int64]int{}
	for i, e := range entries(t, peer) {
		if e.Seq != int64(i)+1 {
			t.Fatalf("log entry %d has the number %d", i+1, e.Seq)
		}
		if e.Result != refpeer.ResultInserted {
			t.Errorf("log entry %d: got %s, want inserted", e.Seq, e.Result)
		}
		logged[e.ID] = true
		perPush[e.Push]++
	}
	for id := range answered {
		if !stored[id] || !logged[id] {
			t.Errorf("answered memory %s: stored %t, logged %t", id, stored[id], logged[id])
		}
	}
	if len(stored) != len(logged) {
		t.Errorf("got %d stored and %d logged memories, want the same", len(stored), len(logged))
	}
	for push, n := range perPush {
		if n != batch {
			t.Errorf("push %d: got %d items, want %d: half a push was applied", push, n, batch)
		}
	}
}

// TestKillLists kills a peer while pushes of all lists run, and wants every
// answered one back, whole, and none by half.
func TestKillLists(t *testing.T) {
	t.Parallel()
	const rounds, enough = 2, 40
	dir := t.TempDir()
	answered := map[string]bool{} // owned by the sender until it has ended
	for round := range rounds {
		victim, url := startVictim(t, dir)
		client := &http.Client{Transport: &http.Transport{}}
		var done atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("r%d-n%d", round, n)
				memory := func(suffix string) json.RawMessage {
					return json.RawMessage(memoryJSON(t, fields{"id": id + suffix, "title": id + suffix}))
				}
				body := bodyOf(t, fields{
					"memories": []any{memory("-a"), memory("-b"), memory("-c")}, "archives": []string{id + "-c"},
					"links": []any{linkOf(id+"-a", "related_to", id+"-b")}, "pendings": []any{pendingOf(id, nil)},
					"pending_decisions": []any{decisionOf(id, true)}, "namespace_meta": []any{standardOf(id, id+"-a", nil)},
				})
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("X-Peer-Id", sender)
				resp, err := client.Do(r)
				if err != nil {
					return // killed
				}
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					return
				}
				answered[id] = true
				done.Add(1)
			}
		})
		eventually(t, "load", func() bool { return done.Load() >= enough })
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		_ = victim.Wait() // killed on purpose
		client.CloseIdleConnections()
	}

	peer := openPeer(t, refpeer.Config{DataDir: dir})
	got := map[string]int{} // parts by push
	for _, row := range rows(t, peer) {
		got[pushOf(row["id"].(string))]++
	}
	s := state(t, peer)
	for _, l := range s.Links {
		got[pushOf(l.SourceID)]++
	}
	for _, p := range s.Pendings {
		if p.Status != "approved" {
			t.Errorf("action %s: got the status %s, want approved: half a push was applied", p.ID, p.Status)
		}
		got[p.ID]++
	}
	for _, n := range s.NamespaceMeta {
		got[n.Namespace]++
	}
	if len(s.Archived) != len(got) {
		t.Errorf("got %d archived memories, want one of each of %d pushes", len(s.Archived), len(got))
	}
	for id := range answered {
		if got[id] == 0 {
			t.Errorf("answered push %s is gone", id)
		}
	}
	for id, parts := range got {
		if parts != 5 { // 2 live memories, a link, an action, a standard
			t.Errorf("push %s: got %d parts, want 5: half a push was applied", id, parts)
		}
	}
	perPush := map[int64]int{}
	for _, e := range entries(t, peer) {
		perPush[e.Push]++
	}
	for push, n := range perPush {
		if n != 8 {
			t.Errorf("push %d: got %d log entries, want 8", push, n)
		}
	}
}

// pushOf is the part of an id before its last dash.
func pushOf(id string) string { return id[:strings.LastIndexByte(id, '-')] }
