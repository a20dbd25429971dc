package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/localpg"
	"quorumbox/internal/scratch"
)

var (
	// errNoServer says that there is no server to test with, as opposed to one that misbehaves.
	errNoServer = errors.New("no Postgres server")

	errNoMain = errors.New("call pgtest.Main from TestMain")
)

// content is what a fresh database holds.
type content int

const (
	fromTemplate content = iota
	empty
)

const (
	// databasePrefix begins the name of every database of this package.
	databasePrefix = "qbtest_"

	// abandonedAge is when a database on a server that outlives its test binaries is taken for one whose binary was killed.
	// It is above the longest run of a test binary.
	abandonedAge = 6 * time.Hour
)

// server is a Postgres server and what was prepared there. Its methods are safe for concurrent use after configure.
type server struct {
	options    options
	configured bool

	once     sync.Once
	startErr error

	// Written by the once, read after it.
	local    *localpg.Server // nil where the server was there before
	adminURL string
	major    int
	template string // empty: none
}

func (s *server) configure(opts []Option) {
	for _, opt := range opts {
		opt(&s.options)
	}
	s.configured = true
}

// start connects to the server, or starts one, and prepares the template. Only the first call works, the others wait for it;
// all return its error.
func (s *server) start(ctx context.Context) error {
	if !s.configured {
		return errNoMain
	}
	s.once.Do(func() {
		// The server outlives the test that happens to be the first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), setupTimeout)
		defer cancel()
		s.startErr = s.open(ctx)
	})
	return s.startErr
}

func (s *server) open(ctx context.Context) error {
	s.adminURL = os.Getenv(ServerVariable)
	if s.adminURL == "" {
		local, err := localpg.Start(ctx, localpg.Options{Durability: localpg.NoSync, Settings: map[string]string{
			// Dropping a database scans the buffers.
			"shared_buffers": "64MB",
			// The data may be in memory.
			"max_wal_size": "512MB",
			// No test may depend on the time zone of the server. This spelling needs no time zone files.
			"timezone": "<+0545>-05:45",
		}})
		if err != nil {
			return fmt.Errorf("%w: %w", errNoServer, err)
		}
		s.local, s.adminURL = local, local.URL("postgres")
	}
	return s.withAdmin(ctx, func(conn *pgx.Conn) error {
		if err := s.readVersion(ctx, conn); err != nil {
			return err
		}
		if s.local == nil {
			if err := dropAbandoned(ctx, conn); err != nil {
				return err
			}
		}
		return s.makeTemplate(ctx, conn)
	})
}

func (s *server) readVersion(ctx context.Context, conn *pgx.Conn) error {
	var number string
	if err := conn.QueryRow(ctx, `show server_version_num`).Scan(&number); err != nil {
		return fmt.Errorf("read the server's version: %w", err)
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return fmt.Errorf("read the server's version: %w", err)
	}
	s.major = n / 10000
	return nil
}

func (s *server) makeTemplate(ctx context.Context, conn *pgx.Conn) error {
	if s.options.prepare == nil {
		return nil
	}
	label := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(s.options.templateName), "_"), "_")
	name := scratch.Name(databasePrefix, "template_"+label[:min(len(label), 20)])
	if _, err := conn.Exec(ctx, `create database `+pgx.Identifier{name}.Sanitize()+` template template0`); err != nil {
		return fmt.Errorf("create the template: %w", err)
	}
	s.template = name
	if err := s.options.prepare(ctx, s.url(name)); err != nil {
		return fmt.Errorf("prepare the template %q: %w", s.options.templateName, err)
	}
	return nil
}

// create makes a database and returns its name.
func (s *server) create(ctx context.Context, what content) (string, error) {
	template := "template0"
	if what == fromTemplate && s.template != "" {
		template = s.template
	}
	name := scratch.Name(databasePrefix, "db")
	statement := `create database ` + pgx.Identifier{name}.Sanitize() + ` template ` + pgx.Identifier{template}.Sanitize()
	if s.local != nil && s.major >= 15 {
		// Without fsync, copying files takes half as long as logging every page (measured on 15, 17 and 18: 10 ms and 20 ms).
		// On other servers its two checkpoints may be expensive, and 14 does nothing else.
		statement += ` strategy file_copy`
	}
	err := s.withAdmin(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statement)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("copy database %s: %w", template, err)
	}
	return name, nil
}

// drop removes a database and ends its connections.
func (s *server) drop(ctx context.Context, name string) error {
	return s.withAdmin(ctx, func(conn *pgx.Conn) error { return dropDatabase(ctx, conn, name) })
}

func dropDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, `drop database if exists `+pgx.Identifier{name}.Sanitize()+` with (force)`)
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// stop ends a server that start has started, and drops the template from one that was there before.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.local != nil {
		return s.local.Stop(ctx)
	}
	if s.template == "" {
		return nil
	}
	return s.drop(ctx, s.template)
}

// url is the connection string of a database of this server: that of the server with another database.
func (s *server) url(database string) string {
	return scratch.URL(s.adminURL, database)
}

// withAdmin runs f with a connection to the server's own database. One connection per use: idle ones would count as leaks.
func (s *server) withAdmin(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.adminURL)
	if err != nil {
		if s.local == nil {
			return fmt.Errorf("connect to the server that %s names: %w", ServerVariable, err)
		}
		return fmt.Errorf("connect to the test server: %w", err)
	}
	return errors.Join(f(conn), conn.Close(context.WithoutCancel(ctx)))
}

// dropAbandoned removes old databases of test binaries that were killed.
func dropAbandoned(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `select datname from pg_database where starts_with(datname, $1)`, databasePrefix)
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	for _, name := range names {
		if !scratch.IsAbandoned(name, databasePrefix, abandonedAge, time.Now()) {
			continue
		}
		if err := dropDatabase(ctx, conn, name); err != nil {
			return err
		}
	}
	return nil
}
