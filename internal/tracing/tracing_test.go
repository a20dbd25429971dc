package tracing_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"quorumbox/internal/span"
	"quorumbox/internal/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counter counts spans by result.
type counter struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *counter) Spans(result string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[result] += n
}

func (c *counter) get(r span.Result) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[string(r)]
}

// provider returns a provider for the endpoint, with what it counts and logs. It keeps all traces.
func provider(t *testing.T, endpoint string, change ...func(*tracing.Config)) (*tracing.Provider, *counter, *bytes.Buffer) {
	t.Helper()
	counts, log := &counter{}, &bytes.Buffer{}
	cfg := tracing.Config{
		Endpoint: endpoint, SampleRatio: 1, SenderID: "ai:leader", Version: "test", Counter: counts, Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
	for _, c := range change {
		c(&cfg)
	}
	p, err := tracing.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Shutdown(context.WithoutCancel(t.Context())) })
	return p, counts, log
}

func spans(t *testing.T, p *tracing.Provider, n int) {
	t.Helper()
	for range n {
		_, s := p.Tracer().Start(t.Context(), "a span")
		s.End()
	}
}

// shutDown ends the provider within a time and returns how long it took.
func shutDown(t *testing.T, p *tracing.Provider, within time.Duration) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	begun := time.Now()
	err := p.Shutdown(ctx)
	return time.Since(begun), err
}

func TestSpansArrive(t *testing.T) {
	t.Parallel()
	var (
		mu   sync.Mutex
		got  []string
		path string
		auth string
	)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		var req coltracepb.ExportTraceServiceRequest
		if err := proto.Unmarshal(raw, &req); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		path, auth = r.URL.Path, r.Header.Get("Authorization")
		for _, rs := range req.GetResourceSpans() {
			for _, a := range rs.GetResource().GetAttributes() {
				got = append(got, a.GetKey()+"="+a.GetValue().GetStringValue())
			}
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					got = append(got, s.GetName())
				}
			}
		}
	}))
	defer server.Close()
	p, counts, _ := provider(t, server.URL+"/v1/traces", func(c *tracing.Config) { c.Headers = map[string]string{"Authorization": "Bearer x"} })
	spans(t, p, 3)
	if _, err := shutDown(t, p, time.Minute); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if all := strings.Join(got, " "); strings.Count(all, "a span") != 3 || !strings.Contains(all, "service.name=quorumbox") || !strings.Contains(all, "quorumbox.sender_id=ai:leader") {
		t.Errorf("got %s", all)
	}
	if path != "/v1/traces" || auth != "Bearer x" {
		t.Errorf("got path %s, authorization %q", path, auth)
	}
	if n := counts.get(span.Exported); n != 3 {
		t.Errorf("got %d spans counted as exported, want 3", n)
	}
}

// An endpoint that never answers costs the one who ends a span nothing, and what does not fit into the queue is counted.
func TestEndpointHangs(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the client go
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	p, counts, _ := provider(t, server.URL)
	begun := time.Now()
	spans(t, p, tracing.QueueSize+1000)
	if took := time.Since(begun); took > tracing.ExportTimeout/2 {
		t.Errorf("ending spans took %s while the endpoint hangs", took)
	}
	<-asked
	took, err := shutDown(t, p, 200*time.Millisecond)
	if err == nil || took > 5*time.Second {
		t.Errorf("got %v after %s, want an error after 200ms", err, took)
	}
	if full, failed := counts.get(span.QueueFull), counts.get(span.Failed); full != 1000 || failed != tracing.QueueSize {
		t.Errorf("got %d spans dropped for the full queue and %d at the end, want 1000 and %d", full, failed, tracing.QueueSize)
	}
}

func TestEndpointIsDead(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	p, counts, log := provider(t, "http://"+address)
	spans(t, p, 10)
	if took, _ := shutDown(t, p, 2*time.Second); took > 10*time.Second {
		t.Errorf("shutdown took %s", took)
	}
	if n := counts.get(span.Failed); n != 10 {
		t.Errorf("got %d spans counted as failed, want 10", n)
	}
	if !strings.Contains(log.String(), "traces not exported") {
		t.Errorf("got the log %q", log)
	}
}

// What the receiver answers is not logged, and a redirect does not get the headers.
func TestEndpointRefuses(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	for status, want := range map[int]string{
		http.StatusUnauthorized:      "tracing.headers_file",
		http.StatusNotFound:          "tracing.endpoint",
		http.StatusBadRequest:        "refuses the request",
		http.StatusTemporaryRedirect: "refuses the request",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "your token canary is no good")
			}))
			defer server.Close()
			p, counts, log := provider(t, server.URL)
			spans(t, p, 2)
			_, _ = shutDown(t, p, time.Minute)
			if n := counts.get(span.Failed); n != 2 {
				t.Errorf("got %d spans counted as failed, want 2", n)
			}
			if text := log.String(); !strings.Contains(text, want) || strings.Contains(text, "canary") {
				t.Errorf("got the log %q, want it to say %q and nothing of the answer", text, want)
			}
		})
	}
}

func TestNothingIsSentAfterShutdown(t *testing.T) {
	t.Parallel()
	p, counts, _ := provider(t, "http://127.0.0.1:1")
	for range 2 {
		if _, err := shutDown(t, p, time.Minute); err != nil {
			t.Error(err)
		}
	}
	spans(t, p, 5)
	if counts.get(span.Exported)+counts.get(span.Failed) != 0 {
		t.Error("spans were sent after the end")
	}
}

func TestSampler(t *testing.T) {
	t.Parallel()
	kept := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	not := kept.WithTraceFlags(0)
	for name, c := range map[string]struct {
		parent trace.SpanContext
		links  []trace.Link
		want   sdktrace.SamplingDecision
	}{
		"root":                  {want: sdktrace.Drop},
		"kept parent":           {parent: kept, want: sdktrace.RecordAndSample},
		"dropped parent":        {parent: not, want: sdktrace.Drop},
		"linked to a kept one":  {links: []trace.Link{{SpanContext: not}, {SpanContext: kept}}, want: sdktrace.RecordAndSample},
		"linked to dropped":     {links: []trace.Link{{SpanContext: not}}, want: sdktrace.Drop},
		"dropped parent, links": {parent: not, links: []trace.Link{{SpanContext: kept}}, want: sdktrace.Drop},
	} {
		got := tracing.Sampler(0).ShouldSample(sdktrace.SamplingParameters{
			ParentContext: trace.ContextWithSpanContext(t.Context(), c.parent), TraceID: trace.TraceID{1}, Links: c.links,
		})
		if got.Decision != c.want {
			t.Errorf("%s: got %v, want %v", name, got.Decision, c.want)
		}
	}
}
