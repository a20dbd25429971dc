package migrations_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// firstOnline is the first migration that databases with data and workers at work get: those before it came with the first release.
const firstOnline = "0010"

// form is a kind of statement that must not be in a migration, because it holds writers up for as long as a table is large, or because workers of the version before,
// which go on beside it, cannot do with what it leaves.
type form struct {
	pattern *regexp.Regexp
	why     string
	always  bool // also on a table that the same migration creates
}

// forbidden are matched with one statement in lower case, blanks joined, without comments and texts, with "add_constraint" and "~" for "not valid". The first group is the table, where there is one.
func forbidden() []form {
	const name = `(?:if (?:not )?exists )?(?:only )?([a-z_0-9.]+)`
	list := []struct {
		pattern, why string
		always       bool
	}{
		{`^create (?:unique )?index (?:if not exists )?(?:[a-z_0-9]+ )?on ` + name, "locks out writers while the index is built: create it concurrently", false},
		{`^alter table ` + name + `.* alter (?:column )?[a-z_0-9]+ (?:set data )?type\b`, "rewrites the table: add a column", false},
		{`^alter table ` + name + `.* add (?:column )?(?:if not exists )?[a-z_0-9]+ [^,]*\bdefault [^,]*\b(?:random|gen_random_uuid|clock_timestamp|nextval|timeofday|uuid_generate_v4)\b`, "rewrites the table: a default that is volatile", false},
		{`^alter table ` + name + `.* add (?:column )?(?:if not exists )?[a-z_0-9]+ (?:big|small)?serial\b`, "rewrites the table", false},
		{`^alter table ` + name + `.* (?:generated (?:always|by default) as|set (?:un)?logged|set tablespace|set access method)`, "rewrites the table", false},
		{`^alter table ` + name + `.* set not null`, "reads the whole table while nobody else may: add a check that is not valid, and validate it", false},
		{`^alter table ` + name + `.* add (?:column )?(?:if not exists )?[a-z_0-9]+ [^,]*\b(?:check|references|unique|primary key)\b`, "reads the whole table while nobody else may: add the constraint by itself, not valid, and validate it", false},
		{`^alter table ` + name + `.* add (?:column )?(?:if not exists )?[a-z_0-9]+ (?:[^,d]|d[^,e])*\bnot null(?:[^,d]|d[^,e])*(?:,|$)`, "fails where there are rows: give it a default", false},
		{`^alter table ` + name + `.* add(?:_constraint [a-z_0-9]+)? (?:unique|primary key|exclude) ?\(`, "builds an index while nobody else may: build it concurrently, and use it", false},
		{`^alter table ` + name + `.* add(?:_constraint [a-z_0-9]+)? (?:check|foreign key)[^~]*$`, "reads the whole table while nobody else may: add it not valid, and validate it", false},
		{`^alter table ` + name + `.* (?:enable|disable) trigger`, "waits for all writers", false},
		{`^(?:update|delete from) ` + name, "holds row locks of a whole table: let the program do it, bit by bit", false},
		{`^(?:cluster|vacuum full|lock table|truncate|refresh materialized view)\b`, "locks out everybody", true},
		{`^reindex (?:table|index|schema|database)? ?(?:[a-z_0-9]+)$`, "locks out writers", true},
		{`^alter table ` + name + `.* (?:drop column|drop (?:if exists )?[a-z_0-9]+$|rename)`, "workers of the version before need it: leave that to the release after", false},
		{`^drop (?:table|view|sequence|function|type|domain|column)\b`, "workers of the version before need it: leave that to the release after", true},
	}
	forms := make([]form, len(list))
	for i, f := range list {
		forms[i] = form{regexp.MustCompile(f.pattern), f.why, f.always}
	}
	return forms
}

// allowed marks a statement that is known not to hold anybody up, with the reason.
var allowed = regexp.MustCompile(`(?m)^-- online: \S.{10,}$`)

// statements are those of a migration's way up, each with the comments before it.
func statements(text string) []string {
	up, _, _ := strings.Cut(text, "-- +goose Down")
	var list []string
	var one strings.Builder
	quote := "" // what ends the quoted text that we are in
	for rest := up; rest != ""; {
		switch {
		case quote != "":
			i := strings.Index(rest, quote)
			if i < 0 {
				i = len(rest) - len(quote)
			}
			one.WriteString(quote) // what is quoted does not count
			rest, quote = rest[i+len(quote):], ""
		case strings.HasPrefix(rest, "--"):
			line, after, _ := strings.Cut(rest, "\n")
			one.WriteString(line + "\n")
			rest = after
		case rest[0] == '\'' || rest[0] == '$' && regexp.MustCompile(`^\$[a-z_]*\$`).MatchString(rest):
			quote = regexp.MustCompile(`^(?:'|\$[a-z_]*\$)`).FindString(rest)
			one.WriteString(quote)
			rest = rest[len(quote):]
		case rest[0] == ';':
			list = append(list, one.String())
			one.Reset()
			rest = rest[1:]
		default:
			one.WriteByte(rest[0])
			rest = rest[1:]
		}
	}
	if strings.TrimSpace(bare(one.String())) != "" {
		list = append(list, one.String())
	}
	return list
}

// bare is a statement without comments, in lower case, with single blanks.
func bare(statement string) string {
	text := regexp.MustCompile(`(?m)--.*$`).ReplaceAllString(statement, " ")
	return strings.Join(strings.Fields(strings.ToLower(text)), " ")
}

// offline is what is wrong with a migration that runs beside writers and workers.
func offline(text string) []string {
	var found, created []string
	concurrently := false
	for _, statement := range statements(text) {
		sql := bare(statement)
		if m := regexp.MustCompile(`^create (?:unlogged )?(?:table|view|function|sequence) (?:if not exists )?([a-z_0-9.]+)`).FindStringSubmatch(sql); m != nil {
			created = append(created, m[1])
		}
		if m := regexp.MustCompile(`^create (?:unique )?index concurrently (?:if not exists )?([a-z_0-9]+)`).FindStringSubmatch(sql); m != nil {
			concurrently = true
			if !strings.Contains(bare(text), "drop index concurrently if exists "+m[1]) {
				found = append(found, fmt.Sprintf("%s: what an attempt that was interrupted left must go before the next one: drop index concurrently if exists %s", sql, m[1]))
			}
		}
		if allowed.MatchString(statement) {
			continue
		}
		marked := strings.NewReplacer(" add constraint ", " add_constraint ", " not valid", " ~").Replace(sql)
		for _, f := range forbidden() {
			m := f.pattern.FindStringSubmatch(marked)
			if m == nil || !f.always && len(m) > 1 && slices.Contains(created, m[1]) {
				continue
			}
			found = append(found, sql+": "+f.why)
		}
	}
	if concurrently && !strings.Contains(text, "-- +goose NO TRANSACTION") {
		found = append(found, "an index that is created concurrently needs -- +goose NO TRANSACTION")
	}
	return found
}

// Every migration from 0010 on can run while a fleet of the version before works.
func TestMigrationsRunOnline(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.sql")
	if err != nil || len(files) < 9 {
		t.Fatalf("got %d migrations, %v", len(files), err)
	}
	for _, file := range files {
		if file < firstOnline {
			continue
		}
		text, err := os.ReadFile(file) //nolint:gosec // our own
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range offline(string(text)) {
			t.Errorf("%s: %s\n(see docs/upgrading.md; if it holds nobody up, say why in a comment before it: -- online: ...)", file, problem)
		}
	}
}

func TestOffline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ sql, want string }{
		{`create index outbox_kind on outbox (kind);`, "create it concurrently"},
		{`CREATE UNIQUE INDEX IF NOT EXISTS x ON outbox (kind);`, "create it concurrently"},
		{"-- +goose NO TRANSACTION\ndrop index concurrently if exists x;\ncreate index concurrently x on outbox (kind);", ""},
		{"-- +goose NO TRANSACTION\ncreate index concurrently x on outbox (kind);", "drop index concurrently if exists x"},
		{"drop index concurrently if exists x;\ncreate index concurrently x on outbox (kind);", "needs -- +goose NO TRANSACTION"},
		{`create table fresh (n int); create index fresh_n on fresh (n); update fresh set n = 1;`, ""},
		{`alter table outbox alter column key type varchar(10);`, "rewrites the table"},
		{`alter table outbox alter key set data type text;`, "rewrites the table"},
		{`alter table outbox add column at timestamptz default clock_timestamp();`, "volatile"},
		{`alter table outbox add column at timestamptz not null default now();`, ""},
		{`alter table outbox add column id2 uuid default gen_random_uuid();`, "volatile"},
		{`alter table outbox add column id2 bigserial;`, "rewrites the table"},
		{`alter table outbox add column n int generated always as (lane + 1) stored;`, "rewrites the table"},
		{`alter table outbox add column traceparent text;`, ""},
		{`alter table outbox add column n int not null;`, "give it a default"},
		{`alter table outbox add column n int not null default 0, add column m text;`, ""},
		{`alter table outbox add column traceparent text check (traceparent <> '');`, "add the constraint by itself"},
		{`alter table outbox add constraint c check (traceparent <> '') not valid;`, ""},
		{`alter table outbox add constraint c check (traceparent <> '');`, "not valid, and validate it"},
		{`alter table outbox add check (traceparent <> '');`, "not valid, and validate it"},
		{`alter table refusals add constraint f foreign key (peer) references peers;`, "not valid, and validate it"},
		{`alter table batches add primary key (lane);`, "build it concurrently"},
		{`alter table outbox validate constraint c;`, ""},
		{`alter table outbox alter column key set not null;`, "check that is not valid"},
		{`alter table batches add constraint u unique (number);`, "build it concurrently"},
		{`alter table batches add constraint u unique using index u;`, ""},
		{`alter table batches drop column reason;`, "version before"},
		{`alter table batches rename column reason to cause;`, "version before"},
		{`drop function outbox_append(text);`, "version before"},
		{`update batches set reason = '';`, "bit by bit"},
		{`delete from batches where verdict = 'met';`, "bit by bit"},
		{`truncate kept;`, "locks out everybody"},
		{`lock table outbox;`, "locks out everybody"},
		{`reindex table outbox;`, "locks out writers"},
		{`create or replace function f() returns void language plpgsql as $$ begin update batches set reason = ''; end $$;`, ""},
		{`comment on table outbox is 'drop table outbox;';`, ""},
		{"-- online: the table has a row for each peer\nupdate peers set state = 'active';", ""},
		{"-- online:\nupdate peers set state = 'active';", "bit by bit"},
		{"select 1;\n-- +goose Down\ndrop table outbox;", ""},
	} {
		got := strings.Join(offline(tt.sql), "\n")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.sql, got, tt.want)
		}
	}
}
