package page_test

import (
	"testing"

	"quorumbox/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, pgtest.Migrated(), pgtest.WithLeakCheck()) }
