// Command worker replicates an agent-memory store from Postgres to a set of peers, durably.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. Scripts may rely on them.
const (
	exitOK     = 0
	exitFailed = 1 // the command was understood and did not succeed
	exitUsage  = 2 // the command line was not understood
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once, whatever it is doing
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: everything but the process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "worker:", err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// usageError is a command line that was not understood.
type usageError struct {
	err  error
	help string // the command that explains it
}

func (e *usageError) Error() string { return fmt.Sprintf("%v (see `%s --help`)", e.err, e.help) }
func (e *usageError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "worker",
		Short: "Replicate an agent-memory store from Postgres to its peers, durably",
		Long: `quorumbox replicates an agent-memory store from Postgres to a set of peers.

A writer commits its memory and an outbox row in one transaction; the worker pushes
it to every peer, says when a quorum has it, and goes on until all of them do.

Settings come from a YAML file (--config) and the environment (QUORUMBOX_…, DATABASE_URL).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // what is no command is refused below
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q", args[0]), cmd.CommandPath()}
			}
			return cmd.Help()
		},
	}
	root.PersistentFlags().String(configFlag, "", "YAML file with the settings")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, cmd.CommandPath()}
	})
	root.AddCommand(
		newRunCommand(),
		newMigrateCommand(),
		newImportCommand(),
		newStatusCommand(),
		newConfigCommand(),
		newKeysCommand(),
		newPeersCommand(),
		newRefusalsCommand(),
		newVerifyCommand(),
		newPeerCommand(),
		newUICommand(),
		newHealthcheckCommand(),
		newDemoCommand(),
		newStoryCommand(),
		newBenchCommand(),
		newVersionCommand(),
	)
	for _, c := range root.Commands() {
		refuseBadArguments(c)
	}
	return root
}

// refuseBadArguments makes wrong positional arguments usage errors, for c and the commands below it.
func refuseBadArguments(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		refuseBadArguments(sub)
	}
}
