package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"quorumbox/internal/config"
	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the settings, or show what they come to",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(), newConfigPrintCommand())
	return cmd
}

func newConfigCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Report everything that is wrong with the settings and the secret files they name; connects to nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return errors.Join(err, checkFiles(cfg))
			}
			return checkConfig(cmd.OutOrStdout(), cfg)
		},
	}
}

// checkConfig reads everything that a worker reads at its start and writes what an operator should know to out.
func checkConfig(out io.Writer, cfg config.Config) error {
	var warnings []error
	conn, urlErr := checkDatabaseURL(cfg.Database)
	clients, peersErr := newPeers(cfg, func(warning error) { warnings = append(warnings, warning) }, nil)
	for _, c := range clients {
		c.CloseIdle()
	}
	tracesErr := checkTraces(cfg)
	policy, policyErr := cfg.Policy()
	rules, rulesErr := cfg.QuorumRules()
	refusals, refusalsErr := refusedPeers(cfg)
	if err := errors.Join(urlErr, peersErr, tracesErr, policyErr, rulesErr, refusalsErr); err != nil {
		return err
	}
	for _, warning := range append(warnings, refusals...) {
		_, _ = fmt.Fprintf(out, "warning: %s\n", warning)
	}
	if conn.IsZero() {
		_, _ = fmt.Fprintln(out, "note: no database is set: a worker needs DATABASE_URL or database.url")
	}
	if len(cfg.Peers) == 0 {
		_, _ = fmt.Fprintln(out, "note: there are no peers: every write is met by the local commit alone")
	}
	text := fmt.Sprintf("the settings are good: %d peers, quorum %s", len(cfg.Peers), policy)
	if others := rules.Len() - 1; others > 0 {
		text += fmt.Sprintf(", other rules for namespaces: %d", others)
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// checkFiles reads the files that settings name which are wrong themselves, so that what is wrong with the files is told in one go. It is nil where
// the settings could not be read at all.
func checkFiles(cfg config.Config) error {
	_, urlErr := checkDatabaseURL(cfg.Database)
	var common peer.Config
	problems := []error{urlErr, followCommonFiles(&common, cfg, func(error) {})}
	for _, p := range cfg.Peers {
		_, err := newPeerConfig(common, p, func(error) {})
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// checkDatabaseURL returns the connection string, which is empty if there is none, if it is one. Errors do not show it.
func checkDatabaseURL(database config.Database) (secret.Secret, error) {
	conn, err := database.ConnString()
	if err != nil || conn.IsZero() {
		return conn, err
	}
	if _, err := pgxpool.ParseConfig(conn.Reveal()); err != nil {
		return conn, fmt.Errorf("parse the database URL: %w", err)
	}
	return conn, nil
}

// refusedPeers returns an error for each peer that the outbound rules refuse. Such a peer is no mistake of the settings: it is
// refused when it is sent to, and the others are not.
func refusedPeers(cfg config.Config) ([]error, error) {
	policy, err := cfg.Outbound.Policy()
	if err != nil {
		return nil, err
	}
	var refused []error
	for _, p := range cfg.Peers {
		scheme, host := "", p.URL
		if u, err := url.Parse(p.URL); err == nil && u.Hostname() != "" {
			scheme, host = u.Scheme, u.Hostname()
		}
		if err := policy.Check(scheme, host); err != nil {
			refused = append(refused, fmt.Errorf("peer %s gets nothing: governance refused outbound to %s: %w", p.ID, host, err))
		}
	}
	return refused, nil
}

func newConfigPrintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "print",
		Short: "Print all settings, defaults included, as a YAML file with secrets left out",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
}
