package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"quorumbox/internal/config"
	"quorumbox/internal/peer"
	"quorumbox/internal/verify"
	"quorumbox/migrations"
)

// verifyConns is one for the comparison, and one to spare.
const verifyConns = 2

// verifyFlags are the flags of the command verify.
type verifyFlags struct {
	peer          string
	namespaces    []string
	agents        []string
	as            string
	links         string
	rate          float64
	limit         int
	repair        bool
	deleteUnknown bool
	noWait        bool
	wait          time.Duration
	json          bool
}

func newVerifyCommand() *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify --peer ID",
		Short: "Compare what a peer has with the store, and repair what differs",
		Long: `Compare what a peer has with the store, through the peer's read-back API: memories, the
archive, namespace standards and pending actions, with --links links, too.

Workers may run and writers may write meanwhile. A difference counts when it was seen
twice and nothing that explains it is under way; what does not come to rest is reported as
unsettled. With --repair exactly what differs is brought to the store's state by the
workers; the command waits for that and compares it again, unless told otherwise.

Exit codes: 0 the peer is equal, or is so after the repair; 1 it differs, or could not
be compared; 2 the command line was not understood.`,
		Example: `  worker verify --peer peer-a
  worker verify --peer peer-a --namespace team/notes --links --repair`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runVerify(cmd, flags) },
	}
	set := cmd.Flags()
	set.StringVar(&flags.peer, "peer", "", "the peer to compare (required)")
	set.StringArrayVar(&flags.namespaces, "namespace", nil, "compare this namespace alone; may be repeated")
	set.StringVar(&flags.links, "links", "", "compare links, too: of memories that have some here (linked), or of each (all); one request for each memory")
	set.Lookup("links").NoOptDefVal = string(verify.LinksLinked)
	set.StringVar(&flags.as, "as", "", "agent to ask as, which peers have to know as an admin for the archive (default sender_id)")
	set.StringArrayVar(&flags.agents, "agent", nil, "list this agent's private memories, too, although the store has none of it; may be repeated")
	set.Float64Var(&flags.rate, "rate", verify.DefaultRate, "most requests to the peer in a second, 0.01 to 10000")
	set.IntVar(&flags.limit, "limit", 100, "print at most so many differences")
	set.BoolVar(&flags.repair, "repair", false, "repair what differs")
	set.BoolVar(&flags.deleteUnknown, "delete-unknown", false, "with --repair: delete at the peer what the store never had")
	set.BoolVar(&flags.noWait, "no-wait", false, "with --repair: do not wait for the repairs")
	set.DurationVar(&flags.wait, "wait", 10*time.Minute, "with --repair: how long to wait for the repairs")
	set.BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

// options checks the flags against the settings.
func (f verifyFlags) options(cfg config.Config) (verify.Options, config.Peer, error) {
	at := slices.IndexFunc(cfg.Peers, func(p config.Peer) bool { return p.ID == f.peer })
	switch {
	case f.peer == "":
		return verify.Options{}, config.Peer{}, errors.New("--peer is required: name one of peers")
	case at < 0:
		return verify.Options{}, config.Peer{}, fmt.Errorf("--peer %q is not among the configured peers: %s", f.peer, strings.Join(cfg.PeerIDs(), ", "))
	case f.rate < 0.01 || f.rate > 10_000:
		return verify.Options{}, config.Peer{}, errors.New("--rate must be 0.01 to 10000")
	case f.limit < 0:
		return verify.Options{}, config.Peer{}, errors.New("--limit must not be negative")
	case f.wait <= 0:
		return verify.Options{}, config.Peer{}, errors.New("--wait must be more than 0: use --no-wait not to wait")
	case f.links != "" && f.links != string(verify.LinksLinked) && f.links != string(verify.LinksAll):
		return verify.Options{}, config.Peer{}, fmt.Errorf("--links %q is neither linked nor all", f.links)
	case f.deleteUnknown && !f.repair, f.noWait && !f.repair:
		return verify.Options{}, config.Peer{}, errors.New("--delete-unknown and --no-wait have no use without --repair")
	case slices.Contains(f.namespaces, ""):
		return verify.Options{}, config.Peer{}, errors.New("--namespace must not be empty")
	}
	options := verify.Options{
		Namespaces: f.namespaces, Links: verify.LinkScope(f.links), AsAgent: cmp.Or(f.as, cfg.SenderID), Agents: f.agents, Rate: f.rate,
		Repair: verify.Switch(f.repair), DeleteUnknown: verify.Switch(f.deleteUnknown),
	}
	if f.repair && !f.noWait {
		options.Await = f.wait
	}
	return options, cfg.Peers[at], nil
}

func runVerify(cmd *cobra.Command, flags verifyFlags) error {
	ctx := cmd.Context()
	cfg, url, err := loadWithDatabase(cmd)
	if err != nil {
		return err
	}
	options, chosen, err := flags.options(cfg)
	if err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	client, err := newPeer(cfg, chosen, warnings(newLogger(cfg.Log, cmd.ErrOrStderr())))
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if err := migrations.Check(ctx, url); err != nil {
		return err
	}
	pool, err := openPool(ctx, url, verifyConns, "quorumbox verify")
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Release()

	out := verifyOutput{flags: flags, out: cmd.OutOrStdout(), bar: newVerifyBar(cmd.ErrOrStderr())}
	options.OnDifference, options.OnProgress = out.difference, out.bar.show
	report, err := verify.Run(ctx, conn, client, chosen.ID, options)
	out.bar.clear()
	if printErr := out.report(report); err == nil {
		err = printErr
	}
	if err != nil {
		return err
	}
	return judgeVerify(report)
}

// newPeer makes a client for one peer; newPeers says how.
func newPeer(cfg config.Config, p config.Peer, warn func(error)) (*peer.Client, error) {
	common, err := newCommonPeerConfig(cfg, warn)
	if err != nil {
		return nil, err
	}
	c, err := newPeerConfig(common, p, warn)
	if err != nil {
		return nil, err
	}
	return peer.New(c)
}

// judgeVerify is the error that makes the exit code of a comparison that went through.
func judgeVerify(r verify.Report) error {
	switch {
	case r.Equal():
		return nil
	case r.Left == 0:
		return fmt.Errorf("%d did not come to rest: compare again when less is written, or when the peer has caught up (`worker status`)", r.Unsettled)
	case r.Repairs > 0:
		return fmt.Errorf("%s differs in %d, and %d repairs were asked for", r.Peer, r.Left, r.Repairs)
	default:
		return fmt.Errorf("%s differs in %d: --repair brings it to the store's state", r.Peer, r.Left)
	}
}

// verifyOutput prints what is found.
type verifyOutput struct {
	flags   verifyFlags
	out     io.Writer
	bar     verifyBar
	printed int
	list    []verify.Difference // for JSON
}

func (o *verifyOutput) difference(d verify.Difference) {
	if o.printed == o.flags.limit {
		return
	}
	o.printed++
	if o.flags.json {
		o.list = append(o.list, d)
		return
	}
	o.bar.clear()
	fields := ""
	if len(d.Fields) > 0 {
		fields = "  (" + strings.Join(d.Fields, ", ") + ")"
	}
	_, _ = fmt.Fprintf(o.out, "%-14s  %s  %s%s\n", d.Kind, d.Namespace, d.Key, fields)
}

func (o *verifyOutput) report(r verify.Report) error {
	if o.flags.json {
		return json.NewEncoder(o.out).Encode(struct {
			verify.Report

			Equal   bool                `json:"equal"`
			List    []verify.Difference `json:"list"`
			Seconds float64             `json:"seconds"`
		}{r, r.Equal(), append([]verify.Difference{}, o.list...), r.Took.Seconds()})
	}
	if more := r.Total() - int64(o.printed); more > 0 {
		_, _ = fmt.Fprintf(o.out, "... and %d more (--limit)\n", more)
	}
	for _, note := range r.Notes {
		_, _ = fmt.Fprintf(o.out, "note: %s\n", note)
	}
	var counts []string
	for _, kind := range verify.Kinds() {
		if n := r.Differences[kind]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	_, err := fmt.Fprintf(o.out, "%s: %d memories in %d namespaces compared in %s with %d requests: %s; %d unsettled, %d unreadable, %d expired\n",
		r.Peer, r.Memories, r.Namespaces, r.Took.Round(time.Millisecond), r.Requests, cmp.Or(strings.Join(counts, ", "), "no difference"),
		r.Unsettled, r.Unreadable, r.Expired)
	if r.Repairs > 0 && err == nil {
		_, err = fmt.Fprintf(o.out, "%d repairs asked for; %d of %d differences left\n", r.Repairs, r.Left, r.Total())
	}
	return err
}

// verifyBar shows how far a comparison is; nothing where the output is no terminal.
type verifyBar struct{ bar *progressbar.ProgressBar }

func newVerifyBar(w io.Writer) verifyBar {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return verifyBar{}
	}
	return verifyBar{progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription("verify"),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
		progressbar.OptionClearOnFinish(),
	)}
}

func (b verifyBar) show(p verify.Progress) {
	if b.bar == nil {
		return
	}
	if p.Total == 0 {
		b.bar.Describe(fmt.Sprintf("%s: %d", p.Phase, p.Done))
		return
	}
	b.bar.Describe(p.Phase)
	if b.bar.GetMax64() != p.Total {
		b.bar.ChangeMax64(p.Total)
	}
	if p.Done < p.Total { // the last one would end the bar
		_ = b.bar.Set64(p.Done)
	}
}

func (b verifyBar) clear() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
