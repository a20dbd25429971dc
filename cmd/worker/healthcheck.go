package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/internal/config"
)

// maxProbeBytes bounds what is read of the answer, which is one line.
const maxProbeBytes = 4 << 10

func newHealthcheckCommand() *cobra.Command {
	var live bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the worker of this configuration whether it is ready, or alive",
		Long: `Ask the worker of this configuration, on its admin.listen, whether it is ready: the database
is there, the schema is as expected, and replication moves (/readyz). With --live ask whether
its loops turn (/livez). A wildcard address is asked on loopback. No login is needed.

The command exits with 0 if it is, and with 1 if it is not or does not answer in time. It is for
the HEALTHCHECK of an image that has no shell.`,
		Example: `  worker healthcheck
  worker --config quorumbox.yaml healthcheck --live`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return &usageError{errors.New("--timeout must be positive"), cmd.CommandPath()}
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			path := "/readyz"
			if live {
				path = "/livez"
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("no answer within %s", timeout))
			defer cancel()
			text, err := probe(ctx, cfg.Admin, path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "ask whether the worker's loops turn, not whether it is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer; one takes up to 3s where the database is slow")
	return cmd
}

// probe returns the worker's answer, or an error that has it.
func probe(ctx context.Context, admin config.Admin, path string) (string, error) {
	addresses, err := probeAddresses(admin.Listen)
	if err != nil {
		return "", err
	}
	tlsConfig, err := admin.ProbeTLS()
	if err != nil {
		return "", err
	}
	scheme := "http"
	if tlsConfig != nil {
		scheme = "https"
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true} // no proxy: it is this machine
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var problems []error
		for _, address := range addresses {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				return conn, nil
			}
			problems = append(problems, err)
		}
		return nil, errors.Join(problems...)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addresses[0]+path, nil)
	if err != nil {
		return "", fmt.Errorf("ask the worker: %w", err)
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("ask the worker at %s: %w", addresses[0], err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBytes))
	if err != nil {
		return "", fmt.Errorf("ask the worker at %s: %w", addresses[0], err)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the worker at %s answers %d to %s: %.200q", addresses[0], resp.StatusCode, path, text)
	}
	return text, nil
}

// probeAddresses are where a worker that listens there is asked, one after the other: a wildcard address on loopback.
func probeAddresses(listen string) ([]string, error) {
	if listen == "" {
		return nil, errors.New("admin.listen is empty: the worker answers nobody")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err) // checked by config.Validate
	}
	if port == "0" {
		return nil, errors.New("admin.listen has port 0, which is another one at each start: set a port")
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		return []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}, nil
	}
	return []string{listen}, nil
}
