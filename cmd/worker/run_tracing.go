package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/config"
	"quorumbox/internal/metrics"
	"quorumbox/internal/tracing"
)

// newTraces makes what exports the worker's spans, nil if they go nowhere. The caller must shut it down.
func newTraces(cfg config.Config, counts *metrics.Metrics, logger *slog.Logger) (*tracing.Provider, error) {
	if cfg.Tracing.Endpoint == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	headers, certificates, err := readTracesFiles(cfg.Tracing, warnings(logger))
	if err != nil {
		return nil, err
	}
	return tracing.New(tracing.Config{
		Endpoint:    cfg.Tracing.URL(),
		SampleRatio: cfg.Tracing.SampleRatio,
		Headers:     headers,
		TLS:         certificates,
		SenderID:    cfg.SenderID,
		Version:     strings.TrimPrefix(version(), "quorumbox "),
		Counter:     counts,
		Logger:      logger,
	})
}

// readTracesFiles reads the files that the settings name, and tells everything that is wrong with them.
func readTracesFiles(cfg config.Tracing, warn func(error)) (headers map[string]string, certificates *tls.Config, err error) {
	var headersErr error
	if cfg.HeadersFile != "" {
		if headers, headersErr = tracing.ReadHeaders(cfg.HeadersFile); headersErr != nil {
			headersErr = fmt.Errorf("tracing.headers_file: %w", headersErr)
		}
	}
	certificates, certificatesErr := cfg.TLS(warn)
	if certificatesErr != nil {
		certificatesErr = fmt.Errorf("tracing: %w", certificatesErr)
	}
	return headers, certificates, errors.Join(headersErr, certificatesErr)
}

// checkTraces tells what is wrong with the files of the settings for traces.
func checkTraces(cfg config.Config) error {
	_, _, err := readTracesFiles(cfg.Tracing, func(error) {})
	return err
}

// tracer begins the worker's spans; nil if there are none.
func (w *worker) tracer() trace.Tracer {
	if w.traces == nil {
		return nil
	}
	return w.traces.Tracer()
}

// dropTracesUnless ends the exporter of a worker that could not be made.
func (w *worker) dropTracesUnless(err *error) {
	if *err == nil || w.traces == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // there is nothing to send
	_ = w.traces.Shutdown(ctx)
}

// flushTraces returns what sends the last spans once everything else has ended: within [tracing.FlushMost], and within what the jobs have left of
// jobs.soft_stop since ctx ended.
func (w *worker) flushTraces(ctx context.Context) func() {
	if w.traces == nil {
		return func() {}
	}
	var told atomic.Int64 // when ctx ended; 0: it has not
	forget := context.AfterFunc(ctx, func() { told.Store(time.Now().UnixNano()) })
	return func() {
		forget()
		most := tracing.FlushMost
		if at := told.Load(); at != 0 {
			most = min(most, w.cfg.Jobs.SoftStop-time.Since(time.Unix(0, at)))
		}
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(most, 0))
		defer cancel()
		if err := w.traces.Shutdown(flush); err != nil {
			w.logger.WarnContext(flush, "last traces not exported", slog.String("error", err.Error()))
		}
	}
}
