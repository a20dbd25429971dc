package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"quorumbox/internal/refpeer"
	"quorumbox/internal/secret"
)

// peerFlags are the flags of the command peer.
type peerFlags struct {
	listen            string
	dataDir           string
	id                string
	apiKeyFile        string
	keysDir           string
	requireEnrollment bool
	noRequireSig      bool
	noSync            bool
	quotaPerDay       int
	faults            string
}

// newPeerCommand is the command that runs a reference receiver until its
// context ends.
func newPeerCommand() *cobra.Command {
	var flags peerFlags
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Run a reference receiver for tests, demos and measurements",
		Long: `Run a receiver of the federation protocol that keeps its state and its own
apply log in one folder. It applies memories and deletions.

Beside the protocol it serves /_ref/memories (all rows), /_ref/log?after=N (what
it applied), /_ref/counters, and /_ref/faults (GET, PUT, DELETE).`,
		Example: `  worker peer --data ./peer1
  worker peer --data ./peer2 --listen 127.0.0.1:9078 --fault '{"mode":"slow","delay":"500ms"}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runPeer(cmd.Context(), flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	set := cmd.Flags()
	set.StringVar(&flags.listen, "listen", "127.0.0.1:9077", "address to listen on; port 0 picks a free one")
	set.StringVar(&flags.dataDir, "data", "", "folder of the peer's file (required)")
	set.StringVar(&flags.id, "id", "ref:peer1", "id of the peer")
	set.StringVar(&flags.apiKeyFile, "api-key-file", "", "file with the key that requests must carry in x-api-key")
	set.StringVar(&flags.keysDir, "keys", "", "folder of enrolled keys, <agent id>.pub with 32 raw bytes each")
	set.BoolVar(&flags.requireEnrollment, "require-enrollment", false, "refuse unsigned pushes of senders without a key")
	set.BoolVar(&flags.noRequireSig, "no-require-sig", false, "do not check signatures and nonces")
	set.BoolVar(&flags.noSync, "no-sync", false,
		"leave writing to the operating system: survives a kill, not a crash of the machine")
	set.IntVar(&flags.quotaPerDay, "quota-per-day", 0, "memories per author, namespace and UTC day; 0: no limit")
	set.StringVar(&flags.faults, "fault", "", `fault to start with, as JSON: {"mode":"down"}; a list is tried in order`)
	if err := cmd.MarkFlagRequired("data"); err != nil {
		panic(err) // only for a flag that does not exist
	}
	return cmd
}

// runPeer serves until ctx ends.
func runPeer(ctx context.Context, flags peerFlags, stdout, stderr io.Writer) (err error) {
	cfg, err := flags.config()
	if err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewJSONHandler(stderr, nil))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", flags.listen)
	if err != nil {
		return fmt.Errorf("listen (choose another address with --listen): %w", err)
	}
	if err := guardBind(listener.Addr(), cfg.APIKey); err != nil {
		return errors.Join(err, listener.Close())
	}
	peer, err := refpeer.Open(ctx, cfg)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, peer.Close()) }()
	if _, err := fmt.Fprintf(stdout, "peer %s listening on http://%s\n", cfg.ID, listener.Addr()); err != nil {
		return errors.Join(fmt.Errorf("write the address: %w", err), listener.Close())
	}
	return peer.Serve(ctx, listener)
}

func (f peerFlags) config() (refpeer.Config, error) {
	cfg := refpeer.Config{DataDir: f.dataDir, ID: f.id, KeysDir: f.keysDir, QuotaPerDay: f.quotaPerDay}
	if f.requireEnrollment {
		cfg.RequireEnrollment = refpeer.On
	}
	if f.noRequireSig {
		cfg.RequireSignature = refpeer.Off
	}
	if f.noSync {
		cfg.Sync = refpeer.Off
	}
	if f.requireEnrollment && f.noRequireSig {
		return cfg, errors.New("--require-enrollment needs signatures: leave out --no-require-sig")
	}
	if f.apiKeyFile != "" {
		key, err := secret.ReadFile(f.apiKeyFile)
		if err != nil {
			return cfg, fmt.Errorf("--api-key-file: %w", err)
		}
		cfg.APIKey = key.Reveal()
	}
	faults, err := refpeer.ParseFaults([]byte(f.faults))
	if err != nil {
		return cfg, fmt.Errorf("--fault: %w", err)
	}
	cfg.Faults = faults
	return cfg, nil
}

// guardBind refuses to serve other machines without an api key.
func guardBind(addr net.Addr, apiKey string) error {
	tcp, ok := addr.(*net.TCPAddr)
	if apiKey != "" || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines: set --api-key-file, or listen on 127.0.0.1", addr)
}
