package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// Replication goes on while the receiver of traces hangs or is not there, and the worker's end waits for it no longer than for its jobs.
func TestReplicationDoesNotWaitForTraces(t *testing.T) {
	t.Parallel()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the worker go
		<-r.Context().Done()
	}))
	t.Cleanup(hanging.Close)
	for name, endpoint := range map[string]string{"hangs": hanging.URL, "is dead": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			_, stop := startRun(t, url, "sender_id: host:test\nadmin: {listen: ''}\njobs: {soft_stop: 1s}\n"+
				"tracing: {endpoint: '"+endpoint+"', sample_ratio: 1}", `"msg":"worker started"`)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, id := range []string{"m-1", "m-2", "m-3"} {
				var stored outbox.Stored
				err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
					stored, err = outbox.Store(ctx, tx, outbox.Memory{ID: id, Namespace: "ns", Title: id, Content: "content"})
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				if v, err := outbox.Await(ctx, conn, stored.Entry); err != nil || !v.IsMet() {
					t.Fatalf("got %+v, %v, want met", v, err)
				}
			}
			begun := time.Now()
			if code := stop(); code != exitOK {
				t.Errorf("got exit code %d, want 0", code)
			}
			if took := time.Since(begun); took > 8*time.Second { // far below the export's own timeout
				t.Errorf("the worker's end took %s", took)
			}
		})
	}
}

func TestTracesFilesAreChecked(t *testing.T) {
	t.Parallel()
	open := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(open, []byte("Authorization: canary\n"), 0o644); err != nil { //nolint:gosec // G306: that is the mistake
		t.Fatal(err)
	}
	settings := "sender_id: host:test\ntracing: {endpoint: 'https://h', headers_file: '" + open + "', ca_file: /missing.pem}"
	runWorker(t, "", settings, "", "config", "check").want(t, exitFailed, "", "tracing.headers_file")
	runWorker(t, "", settings, "", "config", "check").want(t, exitFailed, "", "/missing.pem")
	runWorker(t, pgtest.URL(t), settings, "", "run").want(t, exitFailed, "", "tracing.headers_file")
}
