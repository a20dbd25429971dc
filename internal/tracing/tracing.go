// Package tracing exports the program's spans to an OTLP/HTTP receiver, without ever holding up what they are about: spans wait in a bounded queue, and
// what does not fit, or cannot be sent, is dropped and counted.
package tracing

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/span"
)

const (
	// QueueSize is how many ended spans may wait to be sent, those of a request under way included. It is 2 MB or so.
	QueueSize = 2048
	// batchSize is the most spans of one request.
	batchSize = 512
	// batchEvery is how long a span waits for others, at most.
	batchEvery = 2 * time.Second
	// ExportTimeout bounds one request with its retries.
	ExportTimeout = 10 * time.Second
	// FlushMost bounds the last requests when the program stops.
	FlushMost = 3 * time.Second

	maxRequestBytes = 4 << 20
	maxAnswerBytes  = 64 << 10
)

// Config says where spans go.
type Config struct {
	// Endpoint is the whole URL of the receiver, such as http://127.0.0.1:4318/v1/traces.
	Endpoint string
	// SampleRatio is the share of the traces that begin here that is kept, 0 to 1; see [Sampler].
	SampleRatio float64
	// Headers are sent with each request. They may be secret.
	Headers map[string]string
	// TLS is for an https endpoint. Nil: the system's authorities.
	TLS *tls.Config
	// SenderID and Version describe this program to the receiver.
	SenderID string
	Version  string
	// Counter is told what became of spans. Nil counts nothing.
	Counter Counter
	// Logger defaults to discarding.
	Logger *slog.Logger
}

// Counter counts spans by what became of them, a [span.Result]. It must be safe for concurrent use.
type Counter interface {
	Spans(result string, n int)
}

// Provider makes spans and exports them. It is safe for concurrent use.
type Provider struct {
	sdk      *sdktrace.TracerProvider
	exporter *exporter
	shutdown func() error
}

// New returns a provider that exports in a goroutine of its own, until [Provider.Shutdown]. It opens no connection yet.
func New(cfg Config) (*Provider, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	transport := newTransport(cfg.TLS)
	answers := &lastStatus{next: transport}
	headers := cfg.Headers
	if headers == nil {
		headers = map[string]string{} // what the environment says is not asked
	}
	client, err := otlptracehttp.New(context.Background(), // ends with Shutdown
		otlptracehttp.WithEndpointURL(cfg.Endpoint),
		otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: answers, CheckRedirect: noRedirects}),
		otlptracehttp.WithTimeout(ExportTimeout),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithMaxRequestSize(maxRequestBytes),
		otlptracehttp.WithMaxResponseSize(maxAnswerBytes),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: ExportTimeout / 2, MaxElapsedTime: ExportTimeout,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	p := newProvider(cfg, client, answers)
	sdkShutdown := p.shutdown
	p.shutdown = func() error {
		defer transport.CloseIdleConnections()
		return sdkShutdown()
	}
	return p, nil
}

// newTransport takes no proxy from the environment, as the peers' transports do not.
func newTransport(config *tls.Config) *http.Transport {
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.MinVersion = tls.VersionTLS12 // collectors behind managed endpoints may have no 1.3
	return &http.Transport{
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    ExportTimeout / 2,
		MaxConnsPerHost:        1,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
		ForceAttemptHTTP2:      true,
	}
}

// noRedirects keeps the headers from another host.
func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func newProvider(cfg Config, to sdktrace.SpanExporter, answers *lastStatus) *Provider {
	stopped, abort := context.WithCancel(context.Background()) // ended by Shutdown
	e := &exporter{to: to, answers: answers, counter: cfg.Counter, logger: cfg.Logger, stopped: stopped, abort: abort}
	batches := sdktrace.NewBatchSpanProcessor(e,
		// What Postgres and the peers wait for never waits for this: no WithBlocking.
		sdktrace.WithMaxQueueSize(QueueSize),
		sdktrace.WithMaxExportBatchSize(batchSize),
		sdktrace.WithBatchTimeout(batchEvery),
		sdktrace.WithExportTimeout(ExportTimeout),
	)
	limits := sdktrace.SpanLimits{
		AttributeValueLengthLimit: 128, AttributeCountLimit: 32, EventCountLimit: 64, LinkCountLimit: span.MaxLinks,
		AttributePerEventCountLimit: 16, AttributePerLinkCountLimit: 0,
	}
	p := &Provider{exporter: e}
	p.sdk = sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(&bounded{SpanProcessor: batches, exporter: e}),
		sdktrace.WithSampler(Sampler(cfg.SampleRatio)),
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "quorumbox"),
			attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", uuid.NewString()),
			attribute.String("quorumbox.sender_id", cfg.SenderID),
		)),
	)
	p.shutdown = sync.OnceValue(func() error { return p.sdk.Shutdown(context.Background()) }) // bounded by abort
	return p
}

// Tracer begins spans.
func (p *Provider) Tracer() trace.Tracer { return p.sdk.Tracer(span.Scope) }

// Shutdown sends what waits, until ctx ends; what is left then is dropped and counted. The goroutine has ended when it returns. Spans that end later go nowhere.
func (p *Provider) Shutdown(ctx context.Context) error {
	defer context.AfterFunc(ctx, p.exporter.abort)()
	err := p.shutdown()
	p.exporter.abort()
	if ctx.Err() != nil {
		return fmt.Errorf("tracing: spans dropped at the end: %w", context.Cause(ctx))
	}
	if err != nil {
		return errors.New("tracing: shutdown failed")
	}
	return nil
}
