package main

import (
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"quorumbox/internal/config"
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

// warnings logs what newPeers warns of.
func warnings(logger *slog.Logger) func(error) {
	return func(warning error) {
		logger.Warn("a file of the peers' settings cannot be used", slog.String("error", warning.Error()))
	}
}
