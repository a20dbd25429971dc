package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
)

// refusalFlags choose refused entries.
type refusalFlags struct {
	peer   string
	class  string
	since  time.Duration
	limit  int
	json   bool
	dryRun bool
	all    bool
}

func newRefusalsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refusals",
		Short: "List, retry or drop the entries that a peer refuses for good",
		Long: `List, retry or drop the entries that a peer refuses for good. Each was isolated from what was
pushed with it, which has arrived, and is tried again by itself after 1 minute to 1 hour. One
that later entries have superseded goes away by itself.`,
	}
	cmd.AddCommand(newRefusalsListCommand(), newRefusalsRetryCommand(), newRefusalsDropCommand())
	return cmd
}

// choose adds the flags that choose entries.
func (f *refusalFlags) choose(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&f.peer, "peer", "", "only those of this peer")
	set.StringVar(&f.class, "class", "", "only those refused with this class of answer, such as skipped")
	set.DurationVar(&f.since, "since", 0, "only those refused within this time, such as 24h")
}

// filter checks the flags and the entry ids of the command line.
func (f *refusalFlags) filter(cmd *cobra.Command, args []string) (jobs.RefusalFilter, error) {
	usage := func(format string, values ...any) error {
		return &usageError{fmt.Errorf(format, values...), cmd.CommandPath()}
	}
	filter := jobs.RefusalFilter{Peer: f.peer, Class: peer.Class(f.class), Within: f.since}
	if f.class != "" && !slices.Contains(peer.Classes(), filter.Class) {
		return filter, usage("--class %q is none of the classes of answers: see docs/answers.md", f.class)
	}
	if f.since < 0 {
		return filter, usage("--since must not be negative")
	}
	for _, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return filter, usage("%q is no number of an entry: `worker refusals list` shows them", arg)
		}
		filter.Entries = append(filter.Entries, id)
	}
	return filter, nil
}

func newRefusalsListCommand() *cobra.Command {
	var flags refusalFlags
	cmd := &cobra.Command{
		Use:   "list [ENTRY...]",
		Short: "Show refused entries, the latest refusal first",
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := flags.filter(cmd, args)
			if err != nil {
				return err
			}
			if flags.limit < 1 {
				return &usageError{errors.New("--limit must be 1 or more"), cmd.CommandPath()}
			}
			return withPool(cmd, "quorumbox refusals", func(ctx context.Context, pool *pgxpool.Pool) error {
				list, err := jobs.ListRefusals(ctx, pool, filter, flags.limit)
				if err != nil {
					return err
				}
				if flags.json {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
				}
				return writeRefusals(cmd.OutOrStdout(), list, time.Now())
			})
		},
	}
	flags.choose(cmd)
	cmd.Flags().IntVar(&flags.limit, "limit", 100, "show at most so many")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

func writeRefusals(out io.Writer, list []jobs.RefusedEntry, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no entry is refused")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ENTRY\tPEER\tCLASS\tATTEMPTS\tFIRST\tLAST\tNEXT\tKIND\tNAMESPACE\tKEY")
	ago := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() + " ago" }
	for _, r := range list {
		next := "now"
		if wait := r.NextAt.Sub(now); wait > 0 {
			next = "in " + wait.Round(time.Second).String()
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
			r.Entry, r.Peer, r.Class, r.Attempts, ago(r.FirstAt), ago(r.LastAt), next, r.Kind, r.Namespace, r.Key)
	}
	return w.Flush()
}

func newRefusalsRetryCommand() *cobra.Command {
	return newRefusalsChangeCommand(change{
		use: "retry", short: "Let refused entries be tried again now", done: "tried again",
		do: jobs.RetryRefusals,
	})
}

func newRefusalsDropCommand() *cobra.Command {
	return newRefusalsChangeCommand(change{
		use: "drop", short: "Give refused entries up: their peers never get them", done: "given up",
		do: jobs.DropRefusals,
	})
}

// change is what retry and drop differ in.
type change struct {
	use, short, done string

	do func(ctx context.Context, db jobs.Database, f jobs.RefusalFilter) (int64, error)
}

// mostListed is how many refused entries --dry-run counts.
const mostListed = 1_000_000

func newRefusalsChangeCommand(c change) *cobra.Command {
	var flags refusalFlags
	cmd := &cobra.Command{
		Use:   c.use + " [ENTRY...]",
		Short: c.short,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := flags.filter(cmd, args)
			if err != nil {
				return err
			}
			if len(args) == 0 && flags.peer == "" && flags.class == "" && flags.since == 0 && !flags.all {
				return &usageError{errors.New("name entries, --peer, --class or --since, or say --all"), cmd.CommandPath()}
			}
			return withPool(cmd, "quorumbox refusals", func(ctx context.Context, pool *pgxpool.Pool) error {
				if flags.dryRun {
					list, err := jobs.ListRefusals(ctx, pool, filter, mostListed)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d refused %s would be %s\n", len(list), entries(int64(len(list))), c.done)
					return err
				}
				n, err := c.do(ctx, pool, filter)
				if err != nil && !errors.Is(err, jobs.ErrUndecided) {
					return err
				}
				_, printErr := fmt.Fprintf(cmd.OutOrStdout(), "%d refused %s %s\n", n, entries(n), c.done)
				return errors.Join(err, printErr)
			})
		},
	}
	flags.choose(cmd)
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "say how many they are, and change nothing")
	cmd.Flags().BoolVar(&flags.all, "all", false, "all refused entries")
	return cmd
}

func entries(n int64) string {
	if n == 1 {
		return "entry"
	}
	return "entries"
}

// withPool runs do with a small pool to the configured database.
func withPool(cmd *cobra.Command, name string, do func(ctx context.Context, pool *pgxpool.Pool) error) error {
	_, url, err := loadWithDatabase(cmd)
	if err != nil {
		return err
	}
	pool, err := openPool(cmd.Context(), url, 2, name)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(cmd.Context(), pool)
}
