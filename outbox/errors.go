package outbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a writer may want to tell apart. All of them refuse the whole call.
var (
	// ErrNotFound says that there is nothing of that id, and for a delete or archive that there never was.
	ErrNotFound = errors.New("not found")

	// ErrTitleTaken says that another memory of the namespace has the title. Peers would merge the two.
	ErrTitleTaken = errors.New("another memory of this namespace has this title")

	// ErrLive says that a memory of that id is live. Peers skip a restore of it.
	ErrLive = errors.New("a memory of this id is live")

	// ErrNotArchived says that no memory of that id is archived.
	ErrNotArchived = errors.New("no memory of this id is archived")

	// ErrDecided says that a pending action is decided, and otherwise than asked for.
	ErrDecided = errors.New("the pending action is decided")
)

// writeError gives the database's refusals the types that this package promises.
func writeError(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	const (
		noDataFound    = "P0002" // raised by outbox_missing
		wrongState     = "55000" // raised by outbox_reject
		uniqueViolated = "23505"
		checkViolated  = "23514"
		noJSONText     = "22P05" // U+0000 in a text of jsonb
	)
	switch pgErr.Code {
	case noDataFound:
		return fmt.Errorf("%s: %w", pgErr.Message, ErrNotFound)
	case wrongState, uniqueViolated:
		known := map[string]error{
			"memories_title_namespace": ErrTitleTaken,
			"memories_pkey":            ErrLive,
			"memory_live":              ErrLive,
			"memory_not_archived":      ErrNotArchived,
			"pending_decided":          ErrDecided,
		}
		if named, ok := known[pgErr.ConstraintName]; ok {
			return named
		}
	case checkViolated:
		if pgErr.ColumnName == "" {
			return &InvalidError{Field: pgErr.DataTypeName, Rule: "violates " + pgErr.ConstraintName} // the name of a domain
		}
		// Raised by outbox_refuse as "subject: field: rule".
		_, rule, ok := strings.Cut(pgErr.Message, pgErr.ColumnName+": ")
		if !ok {
			rule = pgErr.Message
		}
		return &InvalidError{Field: pgErr.ColumnName, Rule: rule}
	case noJSONText:
		return &InvalidError{Field: "payload", Rule: "must not contain the character U+0000"}
	}
	return err
}
