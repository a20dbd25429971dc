package refpeer_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"quorumbox/internal/refpeer"
)

// BenchmarkPush measures one push through the handler: decode, apply, log,
// answer, commit; without the network and a signature.
func BenchmarkPush(b *testing.B) {
	content := strings.Repeat("What a memory says. ", 6)
	for _, mode := range []string{"insert", "update", "again"} {
		for _, size := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", mode, size), func(b *testing.B) {
				peer := openPeer(b, refpeer.Config{})
				next := 0
				body := func() string {
					raw := make([]json.RawMessage, 0, size)
					for range size {
						n := next
						if mode != "insert" {
							n %= size
						}
						second := 0
						if mode == "update" {
							second = next / size
						}
						next++
						raw = append(raw, json.RawMessage(memoryJSON(b, fields{
							"id":         fmt.Sprintf("%08x-bench-%d", n*2654435761%(1<<32), n),
							"namespace":  fmt.Sprintf("bench/%d", n%30),
							"title":      fmt.Sprintf("title of memory %d", n),
							"content":    content,
							"updated_at": fmt.Sprintf("2026-01-01T00:00:00.%09d+00:00", second),
						})))
					}
					out, err := json.Marshal(map[string]any{"sender_agent_id": sender, "memories": raw})
					if err != nil {
						b.Fatal(err)
					}
					return string(out)
				}
				text := body()
				send(b, peer, text)
				b.ReportAllocs()
				for b.Loop() {
					if mode != "again" {
						b.StopTimer()
						text = body()
						b.StartTimer()
					}
					if a := send(b, peer, text); a.status != http.StatusOK {
						b.Fatalf("got %d %s", a.status, a.body)
					}
				}
				b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "memories/s")
			})
		}
	}
}
