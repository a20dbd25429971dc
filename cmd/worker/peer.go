package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

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
	attestationFile   string
	trustBodyAgentID  bool
	trustBundleDir    string
	trustDomain       string
	syncTrustPeer     bool
	adminAgents       []string
	backend           string
	embeddingDim      int
	maxCollection     int
	quotaPerDay       int
	quotaBytesPerDay  int
	quotaLinksPerDay  int
	noSync            bool
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
apply log in one folder. It applies every list of a push and answers the
protocol's calls for reading back and for catching up.

Beside the protocol it serves /_ref/memories (all rows), /_ref/state (archive,
links, parked actions, standards, embeddings), /_ref/log?after=N (what it
applied), /_ref/counters, and /_ref/faults (GET, PUT, DELETE).

--attestation names a file with a JSON object of the peers that may talk to it:

  {"ai:leader": {"allowed_sender_agent_ids": ["ai:x"], "allowed_namespaces": ["team/*", "shared/**"]}}

* stands for one segment of a namespace, ** for all that follow. Without the
file any peer may push, and sync/since gives nothing away.

A fault is a JSON object. Its mode is down, slow, zombie, reorder, hang, status,
lose_answer, skipped, refuse_id, unsupported, drift, ids, extra, truncated, gzip,
dry_run, garbage or quota; id, list, above_bytes and above_items say which
pushes it meets, count and probability how often.`,
		Example: `  worker peer --data ./peer1
  worker peer --data ./peer2 --listen 127.0.0.1:9078 --fault '{"mode":"slow","delay":"500ms"}'
  worker peer --data ./peer3 --fault '[{"status":400,"id":"m-7"},{"mode":"quota","after":1000,"reset_in":"30s"}]'
  worker peer --data ./peer4 --attestation peers.json --trust-bundle ./roots --trust-domain fleet.example`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runPeer(cmd.Context(), flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.AddCommand(newPeerHealthCommand())
	set := cmd.Flags()
	set.StringVar(&flags.listen, "listen", "127.0.0.1:9077", "address to listen on; port 0 picks a free one")
	set.StringVar(&flags.dataDir, "data", "", "folder of the peer's file (required)")
	set.StringVar(&flags.id, "id", "ref:peer1", "id of the peer")
	set.StringVar(&flags.apiKeyFile, "api-key-file", "", "file with the key that requests must carry in x-api-key")
	set.StringVar(&flags.keysDir, "keys", "", "folder of enrolled keys, <agent id>.pub with 32 raw bytes each")
	set.BoolVar(&flags.requireEnrollment, "require-enrollment", false, "refuse unsigned pushes of senders without a key")
	set.BoolVar(&flags.noRequireSig, "no-require-sig", false, "do not check signatures and nonces")
	set.StringVar(&flags.attestationFile, "attestation", "", "file with the peers that may push and pull, as JSON; none: no allowlist")
	set.BoolVar(&flags.trustBodyAgentID, "trust-body-agent-id", false, "take the sender of a body for granted, whatever x-peer-id says")
	set.StringVar(&flags.trustBundleDir, "trust-bundle", "",
		"folder of the roots of credentials, <issuer id>.pub with 32 raw bytes each; none: no credential counts")
	set.StringVar(&flags.trustDomain, "trust-domain", "", "the only trust domain whose credentials count (needs --trust-bundle)")
	set.BoolVar(&flags.syncTrustPeer, "sync-trust-peer", false, "without --attestation, let sync/since give everything away")
	set.StringSliceVar(&flags.adminAgents, "admin-agent", nil, "agent that may read archive and counts; repeatable; none: anybody may")
	set.StringVar(&flags.backend, "backend", string(refpeer.BackendSQLite),
		"storage to behave like: sqlite, or postgres, which applies only memories, deletions and links")
	set.IntVar(&flags.embeddingDim, "embedding-dim", 0, "dimension of the embeddings that are kept; 0: none are")
	set.IntVar(&flags.maxCollection, "max-collection", 1000, "elements that one list of a push may have")
	set.IntVar(&flags.quotaPerDay, "quota-per-day", 0, "memories per author, namespace and UTC day; 0: no limit")
	set.IntVar(&flags.quotaBytesPerDay, "quota-bytes-per-day", 0, "bytes of memories per author, namespace and UTC day; 0: no limit")
	set.IntVar(&flags.quotaLinksPerDay, "quota-links-per-day", 0, "links per author, namespace and UTC day; 0: no limit")
	set.BoolVar(&flags.noSync, "no-sync", false,
		"leave writing to the operating system: survives a kill, not a crash of the machine")
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
	cfg := refpeer.Config{
		DataDir: f.dataDir, ID: f.id, KeysDir: f.keysDir,
		TrustBundleDir: f.trustBundleDir, TrustDomain: f.trustDomain, AdminAgents: f.adminAgents,
		Backend: refpeer.Backend(f.backend), EmbeddingDim: f.embeddingDim, MaxCollection: f.maxCollection,
		QuotaPerDay: f.quotaPerDay, QuotaBytesPerDay: f.quotaBytesPerDay, QuotaLinksPerDay: f.quotaLinksPerDay,
	}
	for _, flag := range [...]struct {
		given  bool
		to     refpeer.Switch
		target *refpeer.Switch
	}{
		{f.requireEnrollment, refpeer.On, &cfg.RequireEnrollment},
		{f.noRequireSig, refpeer.Off, &cfg.RequireSignature},
		{f.trustBodyAgentID, refpeer.On, &cfg.TrustBodyAgentID},
		{f.syncTrustPeer, refpeer.On, &cfg.SyncTrustPeer},
		{f.noSync, refpeer.Off, &cfg.Sync},
	} {
		if flag.given {
			*flag.target = flag.to
		}
	}
	if err := f.check(); err != nil {
		return cfg, err
	}
	if f.attestationFile != "" {
		text, err := os.ReadFile(f.attestationFile)
		if err != nil {
			return cfg, fmt.Errorf("--attestation: %w", err)
		}
		if cfg.Attestation, err = refpeer.ParseAttestation(text); err != nil {
			return cfg, fmt.Errorf("--attestation %s: %w", f.attestationFile, err)
		}
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

// check refuses flags that contradict each other, or that would silently mean
// something else.
func (f peerFlags) check() error {
	var errs []error
	if f.requireEnrollment && f.noRequireSig {
		errs = append(errs, errors.New("--require-enrollment needs signatures: leave out --no-require-sig"))
	}
	if f.trustBundleDir != "" && f.noRequireSig {
		errs = append(errs, errors.New("--trust-bundle needs signatures: leave out --no-require-sig"))
	}
	if f.trustDomain != "" && f.trustBundleDir == "" {
		errs = append(errs, errors.New("--trust-domain needs --trust-bundle"))
	}
	if f.syncTrustPeer && f.attestationFile != "" {
		errs = append(errs, errors.New("--sync-trust-peer counts only without --attestation: leave one out"))
	}
	if backend := refpeer.Backend(f.backend); backend != refpeer.BackendSQLite && backend != refpeer.BackendPostgres {
		errs = append(errs, fmt.Errorf("--backend %q: use sqlite or postgres", f.backend))
	}
	if f.maxCollection < 1 {
		errs = append(errs, fmt.Errorf("--max-collection %d: must be 1 or more", f.maxCollection))
	}
	for _, flag := range [...]struct {
		name  string
		value int
	}{
		{"--embedding-dim", f.embeddingDim},
		{"--quota-per-day", f.quotaPerDay},
		{"--quota-bytes-per-day", f.quotaBytesPerDay},
		{"--quota-links-per-day", f.quotaLinksPerDay},
	} {
		if flag.value < 0 {
			errs = append(errs, fmt.Errorf("%s %d: must be 0 or more", flag.name, flag.value))
		}
	}
	return errors.Join(errs...)
}

// guardBind refuses to serve other machines without an api key.
func guardBind(addr net.Addr, apiKey string) error {
	tcp, ok := addr.(*net.TCPAddr)
	if apiKey != "" || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines: set --api-key-file, or listen on 127.0.0.1", addr)
}
