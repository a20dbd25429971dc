package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
)

const (
	// peerHealthTimeout is how long a peer may take to say that it lives.
	peerHealthTimeout = 2 * time.Second

	// maxPeerHealthBytes is how much of its answer is read.
	maxPeerHealthBytes = 4 << 10
)

// newPeerHealthCommand is the command that a container's health check calls, in whose image there is no other HTTP client.
func newPeerHealthCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the reference receiver on this machine for a sign of life",
		Long: `Ask the reference receiver on this machine for a sign of life (GET /api/v1/health,
which needs no key). Exit codes: 0 it answers, 1 it does not within 2s or says that it is
ill, 2 the command line was not understood.`,
		Example: "  worker peer health --listen 0.0.0.0:9077",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, err := peerHealthURL(listen)
			if err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			if err := askPeerHealth(cmd.Context(), url); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9077", "the receiver's own --listen; one that stands for all addresses is asked on 127.0.0.1")
	return cmd
}

// peerHealthURL is where a peer with that --listen answers.
func peerHealthURL(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "" || port == "0" {
		return "", fmt.Errorf("--listen %q: want the host and port that the receiver listens on, such as 127.0.0.1:9077", listen)
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/api/v1/health", nil
}

func askPeerHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, peerHealthTimeout, fmt.Errorf("no answer within %s", peerHealthTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the peer: %w", err)
	}
	client := http.Client{ // not through a proxy, and nowhere else
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return fmt.Errorf("ask the peer: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxPeerHealthBytes)); err != nil {
		return fmt.Errorf("ask the peer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the peer answers %s, want 200", resp.Status)
	}
	return nil
}
