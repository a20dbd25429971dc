package refpeer_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
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
		victim := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // G204: this very test binary
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
		url := strings.TrimSpace(line) + "/api/v1/sync/push"
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
