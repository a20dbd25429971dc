package config

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// tracesPath is where OTLP/HTTP receivers take traces.
const tracesPath = "/v1/traces"

// Tracing says where the spans of replication go.
type Tracing struct {
	// Endpoint is the URL of an OTLP/HTTP receiver. Empty: no spans. See [Tracing.URL].
	Endpoint string `koanf:"endpoint" doc:"URL of the OTLP/HTTP receiver of traces, http or https, such as http://127.0.0.1:4318; without a path, /v1/traces is added; empty: no traces"`
	// SampleRatio is the share of the traces that begin here that is kept. 0 to 1.
	SampleRatio float64 `koanf:"sample_ratio" doc:"share of the traces that begin in the worker that is kept, 0 to 1; where the writer began the trace, its decision holds"`
	// HeadersFile is the path of a file with headers for the receiver, with mode 0600. Empty: none.
	HeadersFile string `koanf:"headers_file" doc:"file with headers for the receiver, one Name: value a line, mode 0600; empty: none"`
	// CAFile is as [Peer.CAFile], for the receiver.
	CAFile string `koanf:"ca_file" doc:"PEM file with the authorities that may vouch for the receiver's certificate, in place of the system's; empty: the system's"`
	// ClientCertFile is as [Peer.ClientCertFile], for the receiver.
	ClientCertFile string `koanf:"client_cert_file" doc:"PEM file with the certificate that the receiver is shown, and its intermediates; read again when it changes; empty: none"`
	// ClientKeyFile is as [Peer.ClientKeyFile], for the receiver.
	ClientKeyFile string `koanf:"client_key_file" doc:"PEM file with the private key of client_cert_file, mode 0600; read again when it changes"`
}

// URL returns the whole URL that traces are posted to; empty if there are none.
func (t Tracing) URL() string {
	u, err := url.Parse(t.Endpoint)
	if t.Endpoint == "" || err != nil {
		return ""
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = tracesPath
	}
	return u.String()
}

// TLS returns how the receiver's certificate is checked and what it is shown, nil for the ordinary. warn is as in [Peer.NewClientCertificate].
func (t Tracing) TLS(warn func(error)) (*tls.Config, error) {
	if t.CAFile == "" && t.ClientCertFile == "" {
		return nil, nil //nolint:nilnil // nothing out of the ordinary
	}
	files := Peer{CAFile: t.CAFile, ClientCertFile: t.ClientCertFile, ClientKeyFile: t.ClientKeyFile}
	roots, err := files.RootCAs()
	if err != nil {
		return nil, err
	}
	certificate, err := files.NewClientCertificate(warn)
	if err != nil {
		return nil, err
	}
	result := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if certificate != nil {
		result.GetClientCertificate = certificate.Get
	}
	return result, nil
}

func (p *problems) checkTracing(t Tracing) {
	if !(t.SampleRatio >= 0 && t.SampleRatio <= 1) { // no number is not within
		p.addf("tracing.sample_ratio is %s: want 0 to 1", strconv.FormatFloat(t.SampleRatio, 'g', -1, 64))
	}
	p.checkPeerTLS("tracing", Peer{URL: t.Endpoint, ClientCertFile: t.ClientCertFile, ClientKeyFile: t.ClientKeyFile, CAFile: t.CAFile})
	if t.Endpoint != "" {
		p.add(checkBaseURL("tracing.endpoint", t.Endpoint, "want a URL such as http://127.0.0.1:4318", "tracing.headers_file"))
		return
	}
	for key, value := range map[string]string{"headers_file": t.HeadersFile, "ca_file": t.CAFile, "client_cert_file": t.ClientCertFile} {
		if value != "" {
			p.addf("tracing.%s is set and tracing.endpoint is not: set both or neither", key)
		}
	}
}

func setFloat(target *float64, raw any) error {
	switch raw := raw.(type) {
	case int:
		*target = float64(raw)
		return nil
	case float64:
		*target = raw
		return nil
	case string:
		if f, err := strconv.ParseFloat(raw, 64); err == nil {
			*target = f
			return nil
		}
	}
	return fmt.Errorf("is %s: want a number, such as 0.1", show(raw))
}
