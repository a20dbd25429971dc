package scratch_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/scratch"
)

func TestName(t *testing.T) {
	t.Parallel()
	prefix, label := "p_", strings.Repeat("l", 38)
	first, second := scratch.Name(prefix, label), scratch.Name(prefix, label)
	if first == second {
		t.Errorf("got %s twice", first)
	}
	if !regexp.MustCompile(`^p_[0-9a-f]{8}_l{38}_[a-z0-9]{12}$`).MatchString(first) || len(first) > 63 {
		t.Errorf("got %s of %d bytes, want prefix, time, label and random characters in at most 63", first, len(first))
	}
}

func TestIsAbandoned(t *testing.T) {
	t.Parallel()
	const prefix, age = "qbtest_", 6 * time.Hour
	now := time.Now()
	named := func(age time.Duration) string { return fmt.Sprintf("%s%x_db_abc", prefix, now.Add(-age).Unix()) }
	tests := map[string]struct {
		name string
		want bool
	}{
		"just made":           {scratch.Name(prefix, "db"), false},
		"young enough":        {named(age - time.Minute), false},
		"old":                 {named(age + time.Minute), true},
		"another database":    {"postgres", false},
		"another's, old":      {fmt.Sprintf("other_%x_abc", now.Add(-2*age).Unix()), false},
		"time without prefix": {fmt.Sprintf("%x_abc", now.Add(-2*age).Unix()), false},
		"no time":             {prefix + "xyz_db", false},
		"a word":              {prefix + "mine", false},
		"no label":            {prefix + "1", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := scratch.IsAbandoned(test.name, prefix, age, now); got != test.want {
				t.Errorf("got %t for %s, want %t", got, test.name, test.want)
			}
		})
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ in, want string }{
		"URL":                         {"postgres://u:p%2Fw@h:1/old?sslmode=disable", "postgres://u:p%2Fw@h:1/new?sslmode=disable"},
		"URL without a database":      {"postgresql://h", "postgresql://h/new"},
		"URL with another name of it": {"postgres://h/a?dbname=b&x=y", "postgres://h/new?x=y"},
		"URL with both names":         {"postgres://h/a?dbname=b&database=c", "postgres://h/new"},
		"keys and values":             {"host=h dbname=old", "host=h dbname=old dbname=new"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := scratch.URL(test.in, "new")
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			config, err := pgx.ParseConfig(got)
			if err != nil || config.Database != "new" {
				t.Errorf("got %v, %v, want a configuration for the database new", config, err)
			}
		})
	}
}
