package peer_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/peer"
)

// memories returns n memories of about 500 bytes.
func memories(n int) []json.RawMessage {
	list := make([]json.RawMessage, n)
	for i := range list {
		list[i] = fmt.Appendf(nil, `{"id":"m-%06d","title":"t","namespace":"n","content":"%s"}`, i, strings.Repeat("x", 440))
	}
	return list
}

func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("memories=%d", n), func(b *testing.B) {
			message := peer.Message{Memories: memories(n)}
			b.SetBytes(int64(len(message.Encode(senderID))))
			b.ReportAllocs()
			for b.Loop() {
				message.Encode(senderID)
			}
		})
	}
}

func BenchmarkPost(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		for _, how := range []struct {
			name   string
			change func(*peer.Config)
		}{{"unsigned", func(*peer.Config) {}}, {"signed", signed}} {
			b.Run(fmt.Sprintf("memories=%d/%s", n, how.name), func(b *testing.B) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(w, okAnswer)
				}))
				b.Cleanup(server.Close)
				client := newClient(b, server.URL, how.change)
				content := peer.Message{Memories: memories(n)}.Encode(senderID)
				b.SetBytes(int64(len(content)))
				b.ReportAllocs()
				for b.Loop() {
					if err := client.Post(b.Context(), peer.Request{Body: content, IdempotencyKey: "m-1", ExpectIDs: []string{"m-1"}}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	answer := []byte(`{"applied":1,"deleted":0,"archived":0,"restored":0,"links_applied":0,"pendings_applied":0,"pending_decisions_applied":0,` +
		`"namespace_meta_applied":0,"namespace_meta_cleared":0,"noop":0,"skipped":0,"quota_refused":0,"dry_run":false,` +
		`"receiver_agent_id":"anonymous:req-1","receiver_clock":{"entries":{"a":"2026-06-15T00:00:00+00:00"}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if e := peer.Classify(http.StatusOK, nil, answer, "m-1", time.Time{}); e != nil {
			b.Fatal(e)
		}
	}
}
