package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quorumbox/internal/config"
	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
)

// Checklist row 29: the retries of a push are counted by how they end, and a push without one is not. An id drift is counted wherever it
// came up.
func TestObservingCountsRetries(t *testing.T) {
	t.Parallel()
	const ack, fail, drift = answerOK, "", `{"applied":1,"ids":["another"]}`
	for _, tt := range []struct {
		name    string
		answers []string // "": 503
		retry   string   // the outcome that is counted, "" for none
		drifts  int
	}{
		{"ack", []string{ack}, "", 0},
		{"fails once", []string{fail, ack}, "ok", 0},
		{"fails twice", []string{fail, fail}, "fail", 0},
		{"drift in the retry", []string{fail, drift}, "id_drift", 1},
		{"drift", []string{drift}, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				n := int(requests.Add(1))
				if n > len(tt.answers) || tt.answers[n-1] == fail {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				_, _ = io.WriteString(w, tt.answers[n-1])
			}))
			server.Config.ErrorLog = log.New(t.Output(), "", 0)
			server.Start()
			t.Cleanup(server.Close)

			cfg, err := config.Load(configFile(t, "", "sender_id: host:test\npeers:\n"+peerLine("a", server.URL, "")), nil)
			if err != nil {
				t.Fatal(err)
			}
			counts := metrics.New()
			counts.SetPeers([]string{"a"})
			clients, err := newPeers(cfg, func(error) {}, observing(counts))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(clients["a"].CloseIdle)
			_ = clients["a"].Push(t.Context(), peer.Request{Body: peer.Message{}.Encode("host:test"), ExpectIDs: []string{"m"}})
			if got := int(requests.Load()); got != len(tt.answers) {
				t.Errorf("requests: got %d, want %d", got, len(tt.answers))
			}

			var want strings.Builder
			want.WriteString("# HELP ai_memory_federation_fanout_retry_total " +
				"What became of the one retry inside a push, for every kind of entry.\n" +
				"# TYPE ai_memory_federation_fanout_retry_total counter\n")
			for _, outcome := range []string{"fail", "id_drift", "ok"} {
				n := 0
				if outcome == tt.retry {
					n = 1
				}
				fmt.Fprintf(&want, "ai_memory_federation_fanout_retry_total{outcome=%q} %d\n", outcome, n)
			}
			fmt.Fprintf(&want, "# HELP replication_id_drift_total "+
				"Answers that acknowledged other ids than were sent. They are no acknowledgements.\n"+
				"# TYPE replication_id_drift_total counter\nreplication_id_drift_total %d\n", tt.drifts)
			err = testutil.GatherAndCompare(counts.Registry(), strings.NewReader(want.String()),
				"ai_memory_federation_fanout_retry_total", "replication_id_drift_total")
			if err != nil {
				t.Error(err)
			}
		})
	}
}
