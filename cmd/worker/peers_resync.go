package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"quorumbox/jobs"
)

func newPeersResyncCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "resync ID",
		Short: "Bring a peer the current state, whatever it has",
		Long: `Bring a peer the current state, whatever it has: all that the store knows is deleted there and
written again, then the peer follows the log. Meanwhile the peer has only a part and gives no
acknowledgement for a quorum. New peers, and those that were away for too long, are brought the
current state by themselves. To find and mend single differences, see ` + "`worker verify`" + `.

A resync that runs already begins again. ` + "`worker status`" + ` shows how far it is.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return &usageError{errors.New("the peer will have only a part of the memories until it is done: say --yes"), cmd.CommandPath()}
			}
			return withPool(cmd, "quorumbox peers", func(ctx context.Context, pool *pgxpool.Pool) error {
				if err := jobs.ResyncPeer(ctx, pool, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is brought the current state: a worker begins within a second or so, see `worker status`\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	return cmd
}
