package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"quorumbox/internal/config"
	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

const configFlag = "config"

// loadConfig reads the settings of a command, checked.
func loadConfig(cmd *cobra.Command) (config.Config, error) {
	path, err := cmd.Flags().GetString(configFlag)
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(path, os.Environ())
}

// loadWithDatabase is loadConfig for a command that needs a database. url is the connection string, which is a secret.
func loadWithDatabase(cmd *cobra.Command) (cfg config.Config, url string, err error) {
	if cfg, err = loadConfig(cmd); err != nil {
		return cfg, "", err
	}
	conn, err := cfg.Database.ConnString()
	if err != nil {
		return cfg, "", err
	}
	if conn.IsZero() {
		return cfg, "", errors.New("no database: set DATABASE_URL or database.url (or see `worker demo`, which brings its own)")
	}
	return cfg, conn.Reveal(), nil
}

func newLogger(cfg config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == config.LogText {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// connectTimeout is how long one attempt to connect to the database may take, unless the connection URL says something else (connect_timeout). pgxpool's two
// minutes would make loops that wait for a database behind a silent network look stuck.
const connectTimeout = 10 * time.Second

// openPool opens a pool whose sessions do not outlive a vanished client for long: a relay's lock hangs on that.
func openPool(ctx context.Context, url string, maxConns int, name string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	cfg.MaxConns = int32(maxConns) //nolint:gosec // at most 500, checked by config.Validate
	cfg.MaxConnLifetime = 5 * time.Minute
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	for k, v := range map[string]string{
		"application_name":                    name,
		"tcp_keepalives_idle":                 "5",
		"tcp_keepalives_interval":             "2",
		"tcp_keepalives_count":                "3",
		"idle_in_transaction_session_timeout": "30s",
	} {
		if _, set := cfg.ConnConfig.RuntimeParams[k]; !set {
			cfg.ConnConfig.RuntimeParams[k] = v
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return pool, nil
}

// warnings logs what newPeers warns of.
func warnings(logger *slog.Logger) func(error) {
	return func(warning error) {
		logger.Warn("a file of the peers' settings cannot be used", slog.String("error", warning.Error()))
	}
}

// newPeers makes a client for each configured peer. The error names everything that is wrong with the files that the settings
// name. warn is told what keeps no peer from being sent to, now or when a file has changed; it must be safe for concurrent use.
// observe may be nil.
func newPeers(cfg config.Config, warn func(error), observe func(peer.Attempt)) (map[string]*peer.Client, error) {
	common, err := newCommonPeerConfig(cfg, warn)
	common.Observe = observe
	problems := []error{err}
	clients := make(map[string]*peer.Client, len(cfg.Peers))
	for _, p := range cfg.Peers {
		c, err := newPeerConfig(common, cfg, p, warn)
		client, newErr := peer.New(c)
		problems = append(problems, err, newErr)
		clients[p.ID] = client
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return clients, nil
}

// newCommonPeerConfig returns what all peers have in common.
func newCommonPeerConfig(cfg config.Config, warn func(error)) (peer.Config, error) {
	common := peer.Config{SenderID: cfg.SenderID, LenientAcks: peer.LenientAcks(cfg.LenientAcks)}
	var problems []error
	policy, err := cfg.Outbound.Policy()
	problems = append(problems, err)
	common.Gate = policy.Check
	if cfg.SigningKeyFile != "" {
		if common.SigningKey, err = peer.LoadSigningKey(cfg.SigningKeyFile); err != nil {
			problems = append(problems, fmt.Errorf("signing_key_file: %w", err))
		}
	}
	if cfg.CredentialFile != "" {
		common.Credential = newCredential(cfg, common.SigningKey, warn)
	}
	return common, errors.Join(problems...)
}

// newCredential returns what gives each push the credential that the files hold then. It has looked at them once, so that what is
// wrong with them is known at the start.
func newCredential(cfg config.Config, key ed25519.PrivateKey, warn func(error)) func() (cred, chain string) {
	holder := identity.NewHolder(cfg.CredentialFile, cfg.CredentialChainFile)
	if len(key) == 0 {
		warn(errors.New("credential_file is set and signing_key_file is not: peers take a credential only with a signature"))
	} else if public, ok := key.Public().(ed25519.PublicKey); ok {
		holder.Expect(cfg.SenderID, public)
	}
	credential := func() (cred, chain string) {
		cred, chain, warning := holder.Headers()
		if warning != nil {
			warn(warning)
		}
		return cred, chain
	}
	credential()
	return credential
}

// newPeerConfig returns common with what is p's own.
func newPeerConfig(common peer.Config, cfg config.Config, p config.Peer, warn func(error)) (peer.Config, error) {
	c := common
	c.ID, c.URL, c.AllowNets, c.MaxConns = p.ID, p.URL, p.Allow, p.Connections
	var problems []error
	refuse := func(err error) { problems = append(problems, fmt.Errorf("peer %s: %w", p.ID, err)) }
	var err error
	if file := cfg.APIKeyFileOf(p); file != "" {
		if c.APIKey, err = secret.ReadFile(file); err != nil {
			refuse(fmt.Errorf("api_key_file: %w", err))
		}
	}
	if c.RootCAs, err = p.RootCAs(); err != nil {
		refuse(err)
	}
	certificate, err := p.NewClientCertificate(func(warning error) { warn(fmt.Errorf("peer %s: %w", p.ID, warning)) })
	switch {
	case err != nil:
		refuse(err)
	case certificate != nil:
		c.ClientCertificate = certificate.Get
	}
	return c, errors.Join(problems...)
}
