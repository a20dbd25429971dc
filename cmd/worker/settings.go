package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"quorumbox/internal/config"
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

// openPool opens a pool whose sessions do not outlive a vanished client for long: a relay's lock hangs on that.
func openPool(ctx context.Context, url string, maxConns int, name string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	cfg.MaxConns = int32(maxConns) //nolint:gosec // at most 500, checked by config.Validate
	cfg.MaxConnLifetime = 5 * time.Minute
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

// newPeers makes a client for each configured peer.
func newPeers(cfg config.Config) (map[string]*peer.Client, error) {
	clients := make(map[string]*peer.Client, len(cfg.Peers))
	var problems []error
	common := peer.Config{SenderID: cfg.SenderID}
	if cfg.SigningKeyFile != "" {
		key, err := peer.LoadSigningKey(cfg.SigningKeyFile)
		if err != nil {
			problems = append(problems, fmt.Errorf("signing_key_file: %w", err))
		}
		common.SigningKey = key
	}
	for _, p := range cfg.Peers {
		c := common
		c.ID, c.URL, c.AllowNets, c.MaxConns = p.ID, p.URL, p.Allow, p.Connections
		if file := cfg.APIKeyFileOf(p); file != "" {
			key, err := secret.ReadFile(file)
			if err != nil {
				problems = append(problems, fmt.Errorf("api key of peer %s: %w", p.ID, err))
			}
			c.APIKey = key
		}
		client, err := peer.New(c)
		if err != nil {
			problems = append(problems, fmt.Errorf("peer %s: %w", p.ID, err))
			continue
		}
		clients[p.ID] = client
	}
	return clients, errors.Join(problems...)
}
