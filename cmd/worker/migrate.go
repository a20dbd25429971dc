package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/migrations"
)

func newMigrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date, or show where it is",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMigrateUpCommand(), newMigrateStatusCommand())
	return cmd
}

func newMigrateUpCommand() *cobra.Command {
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Apply all pending migrations, River's and ours; safe to run in several processes at once",
		Long: `Apply all pending migrations, River's and ours. It is safe to run in several
processes at once, and while writers and workers are at work: a migration that finds
a table in use steps back after a fifth of a second, lets the others pass, and tries
again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, url, err := loadWithDatabase(cmd)
			if err != nil {
				return err
			}
			options := migrations.Options{Patience: patience, Waiting: func(err error, pause time.Duration) {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "waiting behind another transaction, trying again in %s: %v\n", pause.Round(100*time.Millisecond), err)
			}}
			applied, err := options.Up(cmd.Context(), url)
			for _, name := range applied {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), "applied", name)
			}
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "the database is up to date")
			return nil
		},
	}
	cmd.Flags().DurationVar(&patience, "patience", migrations.DefaultPatience, "how long to try again behind transactions that hold a table")
	return cmd
}

func newMigrateStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "List the migrations and which of them are pending",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, url, err := loadWithDatabase(cmd)
			if err != nil {
				return err
			}
			list, err := migrations.List(cmd.Context(), url)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, s := range list {
				state := "pending"
				if s.Applied {
					state = "applied"
				}
				at := ""
				if !s.At.IsZero() {
					at = s.At.UTC().Format(time.RFC3339)
				}
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, state, at)
			}
			return table.Flush()
		},
	}
}
