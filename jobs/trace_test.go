package jobs_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
	"quorumbox/internal/span"
	"quorumbox/internal/tracing"
	"quorumbox/jobs"
	"quorumbox/outbox"
	"quorumbox/quorum"
)

// traces is where the spans of a test go.
type traces struct {
	t        *testing.T
	exporter *tracetest.InMemoryExporter
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// newTraces samples everything, unless a writer says otherwise.
func newTraces(t *testing.T) *traces {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithSampler(tracing.Sampler(1)))
	t.Cleanup(func() { _ = provider.Shutdown(context.WithoutCancel(t.Context())) })
	return &traces{t: t, exporter: exporter, provider: provider, tracer: provider.Tracer(span.Scope)}
}

// writer begins the span of a writer, as an application does.
func (r *traces) writer() (context.Context, trace.SpanContext) {
	ctx, s := r.provider.Tracer("app").Start(r.t.Context(), "write")
	defer s.End()
	return ctx, s.SpanContext()
}

func (r *traces) named(name string) (list tracetest.SpanStubs) {
	for _, s := range r.exporter.GetSpans() {
		if s.Name == name {
			list = append(list, s)
		}
	}
	return list
}

// one waits for the one span of a name.
func (r *traces) one(f *fleet, name string) tracetest.SpanStub {
	r.t.Helper()
	f.eventually("span "+name, func() bool { return len(r.named(name)) > 0 })
	list := r.named(name)
	if len(list) != 1 {
		r.t.Fatalf("got %d spans %s, want one", len(list), name)
	}
	return list[0]
}

func attributes(list []attribute.KeyValue) map[string]any {
	m := map[string]any{}
	for _, kv := range list {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// reference is a reference peer behind a client with the tracer.
func reference(t *testing.T, id string, tracer trace.Tracer) (*peer.Client, *refpeer.Peer) {
	t.Helper()
	receiver, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(receiver.Handler())
	client, err := peer.New(peer.Config{
		ID: id, URL: server.URL, SenderID: "ai:leader", AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Tracer: tracer,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.CloseIdle()
		server.Close()
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	})
	return client, receiver
}

func logOf(t *testing.T, p *refpeer.Peer) (list []refpeer.LogEntry) {
	t.Helper()
	var b bytes.Buffer
	if err := p.Log(t.Context(), &b, 0); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(&b); lines.Scan(); {
		var e refpeer.LogEntry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// startTraced runs a worker whose one peer is a reference peer. tracer is the worker's, or nil.
func startTraced(t *testing.T, tracer trace.Tracer) (*fleet, *refpeer.Peer) {
	t.Helper()
	client, receiver := reference(t, "a", tracer)
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted(), tracer: tracer}
	f.run(func(c *jobs.Config) {
		c.Peers, c.Policy, c.Tracer = []string{"a"}, quorum.Policy{N: 2, W: 2}, tracer
		c.FanOut = jobs.PushFunc(func(ctx context.Context, _ string, req peer.Request) (peer.Report, error) {
			return client.PushReport(ctx, req)
		})
		c.RetryPush = jobs.PushFunc(func(ctx context.Context, _ string, req peer.Request) (peer.Report, error) {
			return peer.Report{Attempts: 1}, client.Post(ctx, req)
		})
	})
	return f, receiver
}

// write stores memories in one transaction, with the span that ctx carries.
func (f *fleet) write(ctx context.Context, ids ...string) (entries []outbox.EntryID) {
	f.t.Helper()
	err := pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
		for _, id := range ids {
			s, err := outbox.Store(ctx, tx, outbox.Memory{ID: id, Namespace: "ns", Title: id, Content: "a secret content"})
			if err != nil {
				return err
			}
			entries = append(entries, s.Entry)
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return entries
}

func TestOneTraceFromTheWriterToThePeer(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f, receiver := startTraced(t, r.tracer)
	ctx, writer := r.writer()
	if v := f.await(f.write(ctx, "m-1")...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}
	dispatch, fanOut, push := r.one(f, "dispatch"), r.one(f, "fan_out"), r.one(f, "push")
	parent := writer
	for _, s := range []tracetest.SpanStub{dispatch, fanOut, push} {
		if s.SpanContext.TraceID() != writer.TraceID() || s.Parent.SpanID() != parent.SpanID() {
			t.Errorf("%s: got trace %s and parent %s, want %s and %s", s.Name, s.SpanContext.TraceID(), s.Parent.SpanID(), writer.TraceID(), parent.SpanID())
		}
		if s.StartTime.After(s.EndTime) || s.Status.Code == codes.Error {
			t.Errorf("%s: got %s to %s, status %v", s.Name, s.StartTime, s.EndTime, s.Status)
		}
		parent = s.SpanContext
	}
	log := logOf(t, receiver)
	want := "00-" + writer.TraceID().String() + "-" + push.SpanContext.SpanID().String() + "-01"
	if len(log) != 1 || log[0].Traceparent != want {
		t.Errorf("got %+v, want one entry whose push had the traceparent %s", log, want)
	}
	got := attributes(push.Attributes)
	delete(got, "quorumbox.bytes")
	if diff := cmp.Diff(map[string]any{
		"quorumbox.peer": "a", "quorumbox.attempt": int64(1), "quorumbox.entries": int64(1), "quorumbox.class": "ok", "http.response.status_code": int64(200),
	}, got); diff != "" || push.SpanKind != trace.SpanKindClient {
		t.Errorf("push, %s (-want +got):\n%s", push.SpanKind, diff)
	}
	if len(fanOut.Events) != 1 || fanOut.Events[0].Name != "verdict" {
		t.Fatalf("got events %v of the fan-out, want its verdict", fanOut.Events)
	}
	verdict := attributes(fanOut.Events[0].Attributes)
	delete(verdict, "quorumbox.lane")
	if diff := cmp.Diff(map[string]any{
		"quorumbox.batch": int64(1), "quorumbox.entries": int64(1), "quorumbox.verdict": "met", "quorumbox.reason": "",
		"quorumbox.acked": int64(1), "quorumbox.needed": int64(2), "quorumbox.members": int64(2),
	}, verdict); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	if n := f.scalar(`select count(*) from river_job where kind = 'fan_out' and args::text like '%trace%'`); n != 0 {
		t.Error("a trace context is in River's args")
	}
	if all := fmt.Sprintf("%+v", r.exporter.GetSpans()); strings.Contains(all, "secret") || strings.Contains(all, "m-1") {
		t.Error("a payload or a key is in a span")
	}
}

// paused makes entries wait until they go in one batch: their lane has an undecided batch.
func paused(f *fleet, write func()) {
	f.t.Helper()
	f.exec(`insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, dispatched_at)
		select l, 1, '{}', 0, 0, 0, 0, 0, 'infinity', now() from generate_series(0, 31) l`)
	write()
	f.exec(`update batches set verdict = 'met', needed = 1, members = 2, decided_at = now() where fan_out = 0`)
}

func TestSeveralWritersInOneBatchAreLinked(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f, receiver := startTraced(t, r.tracer)
	var entries []outbox.EntryID
	var writers []string
	paused(f, func() {
		for i := range 3 {
			ctx, sc := r.writer()
			writers = append(writers, sc.SpanID().String())
			entries = append(entries, f.write(ctx, fmt.Sprintf("m-%d", i))...)
		}
		entries = append(entries, f.write(t.Context(), "m-9")...)
		// What a program wrote past the functions, with the rule off, as a restore of a dump from elsewhere could have it.
		f.exec(`alter domain entry_traceparent drop constraint entry_traceparent_w3c`)
		f.exec(`update outbox set traceparent = 'canary' where key = 'm-9'`)
	})
	if v := f.await(entries...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}
	dispatch, fanOut := r.one(f, "dispatch"), r.one(f, "fan_out")
	var linked []string
	for _, l := range dispatch.Links {
		linked = append(linked, l.SpanContext.SpanID().String())
	}
	slices.Sort(linked)
	slices.Sort(writers)
	if diff := cmp.Diff(writers, linked); diff != "" || dispatch.Parent.IsValid() {
		t.Errorf("dispatch with parent %v, links (-want +got):\n%s", dispatch.Parent, diff)
	}
	if fanOut.Parent.SpanID() != dispatch.SpanContext.SpanID() {
		t.Errorf("got %s as the fan-out's parent, want the dispatch", fanOut.Parent.SpanID())
	}
	for _, e := range logOf(t, receiver) {
		if !strings.Contains(e.Traceparent, dispatch.SpanContext.TraceID().String()) {
			t.Errorf("got %q at the peer, want trace %s", e.Traceparent, dispatch.SpanContext.TraceID())
		}
	}
	if strings.Contains(fmt.Sprintf("%+v", r.exporter.GetSpans()), "canary") {
		t.Error("an invalid traceparent is in a span")
	}
}

// What a writer did not sample is not sampled here either, and the peer is told so.
func TestWriterThatDoesNotSample(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f, receiver := startTraced(t, r.tracer)
	sc := span.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	if v := f.await(f.write(trace.ContextWithRemoteSpanContext(t.Context(), sc), "m-1")...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}
	f.eventually("job completed", func() bool {
		return f.scalar(`select count(*) from river_job where kind = 'fan_out' and state = 'completed'`) == 1
	})
	if spans := r.exporter.GetSpans(); len(spans) != 0 {
		t.Errorf("got %d spans, want none", len(spans))
	}
	log := logOf(t, receiver)
	if len(log) != 1 || !strings.HasPrefix(log[0].Traceparent, "00-0af7651916cd43dd8448eb211c80319c-") || !strings.HasSuffix(log[0].Traceparent, "-00") {
		t.Errorf("got %+v, want the writer's trace, not sampled", log)
	}
}

func TestWithoutATracer(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f, receiver := startTraced(t, nil)
	ctx, _ := r.writer()
	if v := f.await(f.write(ctx, "m-1")...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}
	if log := logOf(t, receiver); len(log) != 1 || log[0].Traceparent != "" {
		t.Errorf("got %+v, want no traceparent", log)
	}
	if n := f.scalar(`select count(*) from river_job where metadata ? 'traceparent'`); n != 0 {
		t.Error("a trace context is in a job's metadata")
	}
	if spans := r.exporter.GetSpans(); len(spans) != 1 {
		t.Errorf("got %d spans, want the writer's alone", len(spans))
	}
}

// A job that the sweeper made names no trace: the entries do.
func TestFanOutOfTheSweeper(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()} // a relay without a tracer
	f.run(func(c *jobs.Config) { c.Tracer = r.tracer })
	ctx, writer := r.writer()
	if v := f.await(f.write(ctx, "m-1")...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}
	if got := r.one(f, "fan_out"); got.Parent.SpanID() != writer.SpanID() || got.SpanContext.TraceID() != writer.TraceID() {
		t.Errorf("got parent %s in trace %s, want the writer's span", got.Parent.SpanID(), got.SpanContext.TraceID())
	}
}

func TestRetryAndRedeliverGoOnWithTheTrace(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f := start(t, func(c *jobs.Config) { c.Tracer = r.tracer })
	f.peers.set("c", refusing(peer.ClassUnavailable))
	ctx, writer := r.writer()
	f.await(f.write(ctx, "m-1")...)
	f.peers.set("c", nil)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	f.eventually("the retry's span", func() bool {
		return slices.ContainsFunc(r.named("peer_retry"), func(s tracetest.SpanStub) bool {
			return s.SpanContext.TraceID() == writer.TraceID() && attributes(s.Attributes)["quorumbox.class"] == "ok"
		})
	})
	for _, s := range r.named("peer_retry") {
		if s.Status.Code == codes.Error && s.Status.Description != "unavailable" {
			t.Errorf("got the description %q of a failed retry, want its class", s.Status.Description)
		}
	}

	f.peers.refuse("m-2")
	ctx, writer = r.writer()
	f.await(f.write(ctx, "m-2")...)
	f.eventually("refused", func() bool { return f.scalar(`select count(*) from refusals`) == 1 })
	f.peers.refuse()
	f.eventually("the redelivery's span", func() bool {
		return slices.ContainsFunc(r.named("redeliver"), func(s tracetest.SpanStub) bool {
			return s.SpanContext.TraceID() == writer.TraceID() && s.Parent.SpanID() == writer.SpanID() && attributes(s.Attributes)["quorumbox.peer"] == "c"
		})
	})
}

func TestRepairAndSnapshotHaveTracesOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := newTraces(t)
	f := start(t, func(c *jobs.Config) { c.Tracer, c.Zombie = r.tracer, 100*time.Millisecond })
	ctx, writer := r.writer()
	f.await(f.write(ctx, "m-1")...)
	f.inTx(func(tx pgx.Tx) error { return jobs.SwitchToSnapshot(t.Context(), tx, "c", jobs.SnapshotAsked) })
	f.eventually("snapshot ended", func() bool { return f.scalar(`select count(*) from snapshots`) == 0 })
	f.eventually("the snapshot's span", func() bool { return len(r.named("snapshot")) > 0 })
	for _, s := range r.named("snapshot") {
		if s.SpanContext.TraceID() == writer.TraceID() || s.Parent.IsValid() {
			t.Errorf("got the snapshot in trace %s with parent %s, want one of its own", s.SpanContext.TraceID(), s.Parent.SpanID())
		}
	}
	f.exec(`insert into repairs (peer, subject, key, lane, method, reason, due_at)
		select 'c', 'memory', key, lane, 'store', 'doubt', now() from outbox where key = 'm-1'`)
	f.eventually("the repair's span", func() bool { return len(r.named("repair")) > 0 })
	if got := attributes(r.named("repair")[0].Attributes); got["quorumbox.subjects"] != int64(1) || got["quorumbox.class"] != "ok" {
		t.Errorf("got %v of the repair", got)
	}
}
