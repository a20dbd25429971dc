package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quorumbox/internal/localpg"
	"quorumbox/internal/scratch"
)

const (
	// databasePrefix begins the name of every database that a demo makes on a server that is not its own.
	databasePrefix = "quorumbox_demo_"

	// abandonedAge is the age from which such a database that nobody is connected to is taken for one of a demo that was killed.
	abandonedAge = time.Hour
)

// openDatabase returns the connection string of a fresh database.
func (s *stage) openDatabase(ctx context.Context) (string, error) {
	if admin := s.cfg.DatabaseURL.Reveal(); admin != "" {
		return s.makeScratch(ctx, admin)
	}
	s.show.event("database", "no DATABASE_URL: starting a Postgres server in a temporary folder")
	server, err := localpg.Start(ctx, localpg.Options{})
	if err != nil {
		return "", fmt.Errorf("start a Postgres server (or set DATABASE_URL to one of yours): %w", err)
	}
	s.onClose("stop the Postgres server", server.Stop)
	s.show.event("database", "Postgres %s runs (process %d), durable as in production", server.Version(), server.Pid())
	return server.URL("postgres"), nil
}

// makeScratch makes a database on a server of the user, and sees to it that it is dropped. A schema in the user's database would not do:
// the worker's advisory locks are the database's, so it would stand in the way of a fleet that works there.
func (s *stage) makeScratch(ctx context.Context, admin string) (string, error) {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", fmt.Errorf("connect to the server that DATABASE_URL names (unset it, and the demo brings its own): %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is lost with it
	dropAbandoned(ctx, conn)

	name := scratch.Name(databasePrefix, "db")
	_, err = conn.Exec(ctx, `create database `+pgx.Identifier{name}.Sanitize()+` template template0 encoding 'UTF8'`)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == insufficientPrivilege {
		return "", fmt.Errorf("the user that DATABASE_URL names may not create databases, and the demo touches no existing one: "+
			"grant it CREATEDB, or unset DATABASE_URL, and the demo brings its own server: %w", err)
	}
	// Whatever became of the statement, there must be no database at the end.
	s.onClose("drop database "+name, func(ctx context.Context) error { return dropScratch(ctx, admin, name) })
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	s.show.event("database", "made %s on the server that DATABASE_URL names; it is dropped at the end", name)
	return scratch.URL(admin, name), nil
}

const insufficientPrivilege = "42501"

func dropScratch(ctx context.Context, admin, name string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `drop database if exists `+pgx.Identifier{name}.Sanitize()+` with (force)`)
	return errors.Join(err, conn.Close(ctx))
}

// dropAbandoned drops the databases of demos that were killed. What cannot be dropped is left for the next demo.
func dropAbandoned(ctx context.Context, conn *pgx.Conn) {
	rows, err := conn.Query(ctx, `
		select d.datname
		from pg_database d
		where starts_with(d.datname, $1)
		  and not exists (select from pg_stat_activity a where a.datname = d.datname)`, databasePrefix)
	if err != nil {
		return
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return
	}
	for _, name := range names {
		if scratch.IsAbandoned(name, databasePrefix, abandonedAge, time.Now()) {
			// Without force: it fails if somebody has connected meanwhile.
			_, _ = conn.Exec(ctx, `drop database if exists `+pgx.Identifier{name}.Sanitize())
		}
	}
}
