package span_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/span"
)

const (
	sampled  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	sampled2 = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
	dropped  = "00-11f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

// recorder is a tracer that remembers how the last span was begun.
type recorder struct {
	trace.Tracer
	parent trace.SpanContext
	config trace.SpanConfig
}

func (r *recorder) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	r.parent, r.config = trace.SpanContextFromContext(ctx), trace.NewSpanStartConfig(opts...)
	return r.Tracer.Start(ctx, name, opts...)
}

func TestOriginsDecideTheParent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entries []string
		parent  string // empty: a trace of its own
		links   int
	}{
		"no entries":                    {nil, "", 0},
		"no contexts":                   {[]string{"", ""}, "", 0},
		"one":                           {[]string{sampled}, sampled, 0},
		"one that is not sampled":       {[]string{dropped}, dropped, 0},
		"the same several times":        {[]string{sampled, sampled}, sampled, 0},
		"one, and entries without":      {[]string{"", sampled}, "", 1},
		"several":                       {[]string{sampled, sampled2, sampled}, "", 2},
		"several, one not sampled":      {[]string{dropped, sampled}, "", 1},
		"several, none sampled":         {[]string{dropped, strings.Replace(dropped, "11f", "22f", 1)}, dropped, 0},
		"none sampled, entries without": {[]string{dropped, ""}, "", 0},
		"invalid":                       {[]string{"00-zz", "00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01"}, "", 0},
		"one, and an invalid one":       {[]string{sampled, strings.ToUpper(sampled2)}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o span.Origins
			for _, e := range c.entries {
				o.Add(e)
			}
			r := &recorder{Tracer: span.None()}
			_, s := o.Start(t.Context(), r, "x")
			s.End()
			if want := span.Parse(c.parent); r.config.NewRoot() == want.IsValid() || !r.config.NewRoot() && r.parent.SpanID() != want.SpanID() {
				t.Errorf("got parent %v (new root: %v), want %q", r.parent, r.config.NewRoot(), c.parent)
			}
			if got := len(r.config.Links()); got != c.links {
				t.Errorf("got %d links, want %d", got, c.links)
			}
		})
	}
}

func TestLinksAreBounded(t *testing.T) {
	t.Parallel()
	var o span.Origins
	for i := range 1000 {
		o.Add(fmt.Sprintf("00-0af7651916cd43dd8448eb211c80319c-%016x-01", i+1))
	}
	r := &recorder{Tracer: span.None()}
	_, s := o.Start(t.Context(), r, "x")
	s.End()
	if got := len(r.config.Links()); got != span.MaxLinks {
		t.Errorf("got %d links of 1000 entries, want %d", got, span.MaxLinks)
	}
}

func TestFormatIsWhatParseReads(t *testing.T) {
	t.Parallel()
	for _, want := range []string{sampled, dropped} {
		if got := span.Format(trace.ContextWithRemoteSpanContext(t.Context(), span.Parse(want))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := span.Format(t.Context()); got != "" {
		t.Errorf("got %q without a span, want none", got)
	}
}
