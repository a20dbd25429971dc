package peer_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/peer"
)

// Each attempt is a span of its own, and names that and nothing else of the trace to the peer.
func TestAttemptsAreTraced(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "canary")
			return
		}
		_, _ = io.WriteString(w, okAnswer)
	})
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	client := newClient(t, rec.URL, signed, func(cfg *peer.Config) { cfg.Tracer = provider.Tracer("test") })

	state, err := trace.ParseTraceState("vendor=canary")
	if err != nil {
		t.Fatal(err)
	}
	parent := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true,
	})
	member, err := baggage.NewMember("user", "canary")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	ctx := baggage.ContextWithBaggage(trace.ContextWithSpanContext(testContext(t), parent), bag)
	if err := client.Push(ctx, peer.Request{Body: body(), Entries: 7}); err != nil {
		t.Fatal(err)
	}

	spans := exporter.GetSpans()
	requests := rec.all()
	if len(spans) != 2 || len(requests) != 2 {
		t.Fatalf("got %d spans and %d requests, want 2 of each", len(spans), len(requests))
	}
	for i, want := range []map[string]any{
		{"quorumbox.peer": "peer-a", "quorumbox.attempt": int64(1), "quorumbox.entries": int64(7), "quorumbox.bytes": int64(len(body())), "quorumbox.class": "unavailable", "http.response.status_code": int64(503)},
		{"quorumbox.peer": "peer-a", "quorumbox.attempt": int64(2), "quorumbox.entries": int64(7), "quorumbox.bytes": int64(len(body())), "quorumbox.class": "ok", "http.response.status_code": int64(200)},
	} {
		got := map[string]any{}
		for _, kv := range spans[i].Attributes {
			got[string(kv.Key)] = kv.Value.AsInterface()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attempt %d (-want +got):\n%s", i+1, diff)
		}
		if spans[i].Parent.SpanID() != parent.SpanID() || spans[i].SpanKind != trace.SpanKindClient {
			t.Errorf("attempt %d: got parent %s, kind %s", i+1, spans[i].Parent.SpanID(), spans[i].SpanKind)
		}
		sc := spans[i].SpanContext
		header := "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-01"
		if got := requests[i].header["Traceparent"]; !slices.Equal(got, []string{header}) {
			t.Errorf("attempt %d: got traceparent %q, want %q", i+1, got, header)
		}
		if all := fmt.Sprint(requests[i].header); strings.Contains(all, "canary") || strings.Contains(all, "Tracestate") || strings.Contains(all, "Baggage") {
			t.Errorf("attempt %d: got headers %s, want nothing else of the trace", i+1, all)
		}
	}
	if strings.Contains(fmt.Sprintf("%+v", spans[0].Status), "canary") {
		t.Error("the peer's answer is in the span")
	}
}

// Without a tracer the headers are those of before, whatever the context carries.
func TestNoTracerNoHeader(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answerOK)
	client := newClient(t, rec.URL)
	ctx := trace.ContextWithSpanContext(testContext(t), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	if err := client.Post(ctx, peer.Request{Body: body()}); err != nil {
		t.Fatal(err)
	}
	if got := rec.all()[0].header; got.Get("Traceparent") != "" {
		t.Errorf("got headers %v, want no traceparent", got)
	}
}
