package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/config"
	"quorumbox/internal/follow"
)

// connectTimeout is how long one attempt to connect to the database may take, unless the connection URL says something else (connect_timeout). pgxpool's two
// minutes would make loops that wait for a database behind a silent network look stuck.
const connectTimeout = 10 * time.Second

// openPool opens a pool whose sessions do not outlive a vanished client for long: a relay's lock hangs on that.
func openPool(ctx context.Context, url string, maxConns int, name string) (*pgxpool.Pool, error) {
	cfg, err := poolConfig(url, maxConns, name)
	if err != nil {
		return nil, err
	}
	return connectPool(ctx, cfg)
}

// openFollowingPool is openPool for a program that runs for long. If the URL is in a file, each new connection is made with what that holds then, so that
// a rotated password needs no restart: connections live for at most five minutes. While the file cannot be used the last URL that could is,
// and warn is told, once for each change; it must be safe for concurrent use.
func openFollowingPool(ctx context.Context, database config.Database, name string, warn func(error)) (*pgxpool.Pool, error) {
	read := func() (*pgxpool.Config, error) {
		conn, err := database.ConnString()
		if err != nil {
			return nil, err
		}
		return poolConfig(conn.Reveal(), database.MaxConns, name)
	}
	if database.URLFile == "" {
		cfg, err := read()
		if err != nil {
			return nil, err
		}
		return connectPool(ctx, cfg)
	}
	files, err := follow.New(read, func(err error) {
		warn(fmt.Errorf("the changed database.url_file cannot be used, going on with the last URL: %w", err))
	}, database.URLFile)
	if err != nil {
		return nil, err
	}
	cfg := files.Get().Copy()
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		now := files.Get().ConnConfig.Copy()
		conn.Host, conn.Port, conn.Database, conn.User, conn.Password = now.Host, now.Port, now.Database, now.User, now.Password
		conn.TLSConfig, conn.Fallbacks, conn.RuntimeParams = now.TLSConfig, now.Fallbacks, now.RuntimeParams
		return nil
	}
	return connectPool(ctx, cfg)
}

func poolConfig(url string, maxConns int, name string) (*pgxpool.Config, error) {
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
	return cfg, nil
}

func connectPool(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
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
