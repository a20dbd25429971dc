package main

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/internal/config"
	"quorumbox/internal/demo"
	"quorumbox/internal/secret"
)

// storyConns is enough for the import, for waiting beside it, and for looking on.
const storyConns = 6

// storyFlags are the flags of the command story.
type storyFlags struct {
	file       string
	pace, wait time.Duration
}

func newStoryCommand() *cobra.Command {
	var flags storyFlags
	cmd := &cobra.Command{
		Use:   "story",
		Short: "Write memories to a fleet that runs, and show how they come to every peer",
		Long: `Write memories to a fleet that runs, as an application does, and show what becomes of them:
verdicts, what each peer has and misses, and in the end whether each peer's copies equal the
store, field by field. It needs workers that run, and reference peers (worker peer), which
show all that they have; with other peers use worker status and worker verify.

Each story has memories of its own, whose ids end in the same eight letters. They stay.
The database's user needs the rights of a writer and of a viewer (docs/roles.md).

The command exits with 0 if every peer has all of it, and with 1 if one does not within
--wait, say because it is stopped: it gets the rest when it is back.`,
		Example: `  worker story
  worker story --file memories.jsonl --pace 0s --wait 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStory(cmd, flags) },
	}
	set := cmd.Flags()
	set.StringVar(&flags.file, "file", "", "memories to write, a JSON object a line (default: a sample that comes with the program)")
	set.DurationVar(&flags.pace, "pace", 6*time.Second, "spread the writes over this time, 0s to 1h; 0s: as fast as it goes")
	set.DurationVar(&flags.wait, "wait", 20*time.Second, "how long the peers may take to have everything after the last write, up to 1h")
	return cmd
}

func runStory(cmd *cobra.Command, flags storyFlags) error {
	ctx := cmd.Context()
	cfg, url, err := loadWithDatabase(cmd)
	if err != nil {
		return err
	}
	policy, err := cfg.Policy()
	if err != nil {
		return err
	}
	peers, err := storyPeers(cfg)
	if err != nil {
		return err
	}
	pool, err := openPool(ctx, url, storyConns, "quorumbox story")
	if err != nil {
		return err
	}
	defer pool.Close()
	view := demo.Lines
	if isTerminal(cmd.OutOrStdout()) && os.Getenv("TERM") != "dumb" {
		view = demo.Live
	}
	return demo.Tell(ctx, demo.StoryConfig{
		Pool: pool, SenderID: cfg.SenderID, Quorum: policy.String(), Peers: peers,
		File: flags.file, Pace: flags.pace, Wait: flags.wait, Out: cmd.OutOrStdout(), View: view,
	})
}

// storyPeers are the configured peers with their keys.
func storyPeers(cfg config.Config) ([]demo.StoryPeer, error) {
	var peers []demo.StoryPeer
	for _, p := range cfg.Peers {
		var key secret.Secret
		if path := cmp.Or(p.APIKeyFile, cfg.APIKeyFile); path != "" {
			var err error
			if key, err = secret.ReadFile(path); err != nil {
				return nil, fmt.Errorf("api key of %s: %w", p.ID, err)
			}
		}
		peers = append(peers, demo.StoryPeer{ID: p.ID, URL: p.BaseURL(), APIKey: key})
	}
	return peers, nil
}
