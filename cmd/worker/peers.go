package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"quorumbox/internal/status"
	"quorumbox/jobs"
)

func newPeersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List, pause, resume, wait for or remove peers",
		Long: `List, pause, resume, wait for or remove peers, for the whole fleet of workers at once.
Peers are added and taken out in the configuration (peers) and become known, or absent, when
a worker starts with it.`,
	}
	cmd.AddCommand(
		newPeersListCommand(),
		newPeersPauseCommand(),
		newPeersResumeCommand(),
		newPeersWaitCommand(),
		newPeersRemoveCommand(),
		newPeersResyncCommand(),
	)
	return cmd
}

func newPeersListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show where each peer stands, and what to do about its last error",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPool(cmd, "quorumbox peers", func(ctx context.Context, pool *pgxpool.Pool) error {
				peers, err := status.ReadPeers(ctx, pool)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(peers)
				}
				return status.WritePeers(cmd.OutOrStdout(), peers)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// peerSwitch is what pause and resume differ in.
type peerSwitch struct {
	use, short, long, done, already string

	do func(ctx context.Context, pool *pgxpool.Pool, id string) (changed bool, err error)
}

func newPeersPauseCommand() *cobra.Command {
	return newPeersSwitchCommand(peerSwitch{
		use: "pause ID", short: "Push nothing more to a peer until it is resumed",
		long: `Push nothing more to a peer, from any worker, until it is resumed. What is written
meanwhile waits for it, and it gives no acknowledgement for a quorum. A push that has begun is
waited for. The pause is that of the River queue peer_ID, so River UI shows and ends it as well;
it outlives restarts.`,
		done: "paused", already: "is paused already", do: jobs.PausePeer,
	})
}

func newPeersResumeCommand() *cobra.Command {
	return newPeersSwitchCommand(peerSwitch{
		use: "resume ID", short: "Push to a paused peer again: first what waits, in order",
		done: "resumed", already: "is not paused", do: jobs.ResumePeer,
	})
}

func newPeersSwitchCommand(s peerSwitch) *cobra.Command {
	return &cobra.Command{
		Use:   s.use,
		Short: s.short,
		Long:  s.long,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withPool(cmd, "quorumbox peers", func(ctx context.Context, pool *pgxpool.Pool) error {
				changed, err := s.do(ctx, pool, args[0])
				if err != nil {
					return err
				}
				text := s.done
				if !changed {
					text = s.already
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", args[0], text)
				return err
			})
		},
	}
}

// drainPoll is how often wait-drained looks.
const drainPoll = 250 * time.Millisecond

func newPeersWaitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait-drained ID",
		Short: "Wait until a peer has everything that is committed now",
		Long: `Wait until a peer has acknowledged everything that was committed when the command began,
and no repair of it is due. What is written later is not waited for. How far it is, is shown on
a terminal.

The command exits with 0 when the peer has all of it, and with 1 if it refuses entries for good
(they are named, and not waited for: see ` + "`worker refusals`" + `), if the peer is paused or not
configured so that nothing comes to it, at the timeout, or when it is stopped.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout < 0 {
				return &usageError{errors.New("--timeout must not be negative"), cmd.CommandPath()}
			}
			return withPool(cmd, "quorumbox peers", func(ctx context.Context, pool *pgxpool.Pool) error {
				if timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("after --timeout %s", timeout))
					defer cancel()
				}
				return waitDrained(ctx, cmd, pool, args[0])
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this time; 0: never")
	return cmd
}

func waitDrained(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool, id string) error {
	drain, err := jobs.NewDrain(ctx, pool, id)
	if err != nil {
		return err
	}
	line := newDrainLine(cmd.ErrOrStderr(), id)
	defer line.clear()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var last jobs.DrainState
	for {
		s, err := drain.Look(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s is not drained (%s): %w", id, drainText(last), context.Cause(ctx))
		case err != nil:
			return err
		case s.Done:
			line.clear()
			return drained(cmd.OutOrStdout(), id, s.Refused)
		case s.Absent:
			return fmt.Errorf("%s is not configured, so nothing comes to it (%s): configure it, or `worker peers remove %s`", id, drainText(s), id)
		case s.Paused:
			return fmt.Errorf("%s is paused, so nothing comes to it (%s): `worker peers resume %s`", id, drainText(s), id)
		}
		last = s
		line.show(drainText(s))
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// drained says so, and is an error if the peer refuses entries.
func drained(out io.Writer, id string, refused []int64) error {
	if len(refused) == 0 {
		_, err := fmt.Fprintf(out, "%s has everything\n", id)
		return err
	}
	const named = 10
	text := strings.Trim(fmt.Sprint(refused[:min(named, len(refused))]), "[]")
	if len(refused) > named {
		text += " …"
	}
	return fmt.Errorf("%s has everything but the entries that it refuses for good: %s (`worker refusals list --peer %s`)", id, text, id)
}

func drainText(s jobs.DrainState) string {
	var parts []string
	add := func(n int64, one, many, what string) {
		switch {
		case n == 1:
			parts = append(parts, "1 "+one+" "+what)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s %s", n, many, what))
		}
	}
	add(s.Undispatched, "entry", "entries", "not dispatched")
	add(s.Undecided, "batch", "batches", "on the way")
	add(s.Missing, "entry", "entries", "missing")
	add(s.Repairs, "repair", "repairs", "due")
	add(s.Doubts, "doubt", "doubts", "due")
	if len(parts) == 0 {
		return "nothing seen yet"
	}
	return strings.Join(parts, ", ")
}

// drainLine shows how far a drain is, on one line of a terminal; nothing elsewhere.
type drainLine struct {
	out io.Writer // nil: nothing is shown
	id  string
}

func newDrainLine(w io.Writer, id string) drainLine {
	if f, ok := w.(*os.File); !ok || !isatty.IsTerminal(f.Fd()) {
		return drainLine{}
	}
	return drainLine{out: w, id: id}
}

const eraseLine = "\r\x1b[K"

func (l drainLine) show(text string) {
	if l.out != nil {
		_, _ = fmt.Fprintf(l.out, "%s%s: %s", eraseLine, l.id, text)
	}
}

func (l drainLine) clear() {
	if l.out != nil {
		_, _ = io.WriteString(l.out, eraseLine)
	}
}

func newPeersRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Forget a peer that is not configured any more",
		Long: `Forget a peer that is not configured any more: where it stands, what it misses and
refuses, and its jobs. Until then what it misses is kept, in case it comes back. If it is configured
again later it is a new peer, which gets what is written from then on.

Before: take it out of the configuration of all workers, and restart them. A worker that still has
it could record nothing any more.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			id := args[0]
			if slices.Contains(cfg.PeerIDs(), id) {
				return fmt.Errorf("%s is in the configuration of this command: take it out there and in that of all workers, and restart them", id)
			}
			return withPool(cmd, "quorumbox peers", func(ctx context.Context, pool *pgxpool.Pool) error {
				removed, err := jobs.RemovePeer(ctx, pool, id)
				if err != nil {
					return err
				}
				var parts []string
				for _, table := range slices.Sorted(maps.Keys(removed)) {
					if n := removed[table]; n > 0 {
						parts = append(parts, fmt.Sprintf("%s %d", table, n))
					}
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s removed; rows deleted: %s\n", id, strings.Join(parts, ", "))
				return err
			})
		},
	}
}
