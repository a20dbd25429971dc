package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
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
				return err
			}
			// Everything that a worker reads at its start.
			url, urlErr := cfg.Database.ConnString()
			clients, peersErr := newPeers(cfg)
			for _, c := range clients {
				c.CloseIdle()
			}
			policy, policyErr := cfg.Policy()
			if err := errors.Join(urlErr, peersErr, policyErr); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if url.IsZero() {
				_, _ = fmt.Fprintln(out, "note: no database is set: a worker needs DATABASE_URL or database.url")
			}
			if len(cfg.Peers) == 0 {
				_, _ = fmt.Fprintln(out, "note: there are no peers: every write is met by the local commit alone")
			}
			_, err = fmt.Fprintf(out, "the settings are good: %d peers, quorum %s\n", len(cfg.Peers), policy)
			return err
		},
	}
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
