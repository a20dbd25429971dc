package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quorumbox/internal/config"
)

func tracingRefusals() []refusal {
	return []refusal{
		{name: "sample ratio too large", file: "tracing: {sample_ratio: 1.5}", want: []string{"tracing.sample_ratio is 1.5: want 0 to 1"}},
		{name: "sample ratio negative", file: "tracing: {sample_ratio: -1}", want: []string{"tracing.sample_ratio is -1"}},
		{name: "sample ratio no number", file: "tracing: {sample_ratio: .nan}", want: []string{"tracing.sample_ratio is NaN"}},
		{name: "sample ratio as a word", file: "tracing: {sample_ratio: some}", want: []string{`tracing.sample_ratio is "some"`, "want a number"}},
		{name: "sample ratio in percent", environ: []string{"QUORUMBOX_TRACING__SAMPLE_RATIO=10%"}, want: []string{"QUORUMBOX_TRACING__SAMPLE_RATIO is", "want a number"}},
		{name: "endpoint without scheme", file: "tracing: {endpoint: 'canary:4318'}", want: []string{"tracing.endpoint (not shown)", "http://127.0.0.1:4318"}},
		{name: "endpoint for gRPC", file: "tracing: {endpoint: 'grpc://canary:4317'}", want: []string{"neither http:// nor https://"}},
		{name: "endpoint with a password", file: "tracing: {endpoint: 'https://u:canary@h'}", want: []string{"tracing.endpoint (not shown) has a user or password", "tracing.headers_file"}}, //nolint:gosec // G101: no real password
		{name: "endpoint with a query", file: "tracing: {endpoint: 'https://h/?key=canary'}", want: []string{"query or fragment"}},
		{name: "headers without an endpoint", file: "tracing: {headers_file: /f}", want: []string{"tracing.headers_file is set and tracing.endpoint is not"}},
		{name: "authorities without TLS", file: "tracing: {endpoint: 'http://h', ca_file: /f}", want: []string{"tracing has certificate files", "want https://"}},
		{name: "trace certificate without key", file: "tracing: {endpoint: 'https://h', client_cert_file: /f}", want: []string{"tracing has one of client_cert_file and client_key_file"}},
	}
}

func TestTracingURL(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"":                          "",
		"http://127.0.0.1:4318":     "http://127.0.0.1:4318/v1/traces",
		"https://h/":                "https://h/v1/traces",
		"https://h/otlp/v1/traces":  "https://h/otlp/v1/traces",
		"https://h:4318/somewhere/": "https://h:4318/somewhere/",
	} {
		if got := (config.Tracing{Endpoint: endpoint}).URL(); got != want {
			t.Errorf("%q: got %q, want %q", endpoint, got, want)
		}
	}
}

func TestTracingLoads(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("tracing: {endpoint: 'http://h:4318', sample_ratio: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Tracing.SampleRatio != 1 || got.Tracing.URL() != "http://h:4318/v1/traces" {
		t.Errorf("got %+v", got.Tracing)
	}
	if got, err = config.Load(file, []string{"QUORUMBOX_TRACING__SAMPLE_RATIO=0.25"}); err != nil || got.Tracing.SampleRatio != 0.25 {
		t.Errorf("got %+v, %v", got.Tracing, err)
	}
	var b strings.Builder
	if err := got.Print(&b); err != nil || !strings.Contains(b.String(), "sample_ratio: 0.25") {
		t.Errorf("got %v and\n%s", err, b.String())
	}
	if d := config.Default().Tracing; d.Endpoint != "" || d.SampleRatio != 0.1 {
		t.Errorf("got the defaults %+v, want off", d)
	}
}

// The files are looked at when the worker starts, and an error names the one.
func TestTracingTLSRefuses(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tracing := range []config.Tracing{{CAFile: missing}, {ClientCertFile: missing, ClientKeyFile: missing}} {
		if _, err := tracing.TLS(nil); err == nil || !strings.Contains(err.Error(), "missing.pem") {
			t.Errorf("got %v, want an error that names the file", err)
		}
	}
	if got, err := (config.Tracing{}).TLS(nil); got != nil || err != nil {
		t.Errorf("got %v, %v without files, want the ordinary", got, err)
	}
}
