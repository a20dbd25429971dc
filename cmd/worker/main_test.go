package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"quorumbox/internal/pgtest"
)

func TestMain(m *testing.M) {
	// What is set where the tests run must not reach them.
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if name == "DATABASE_URL" || strings.HasPrefix(name, "QUORUMBOX_") {
			if err := os.Unsetenv(name); err != nil {
				panic(err)
			}
		}
	}
	pgtest.Main(m, pgtest.Migrated())
}

// outcome is what one run of the program left behind.
type outcome struct {
	code   int
	stdout string
	stderr string
}

// runWorker runs the program in this process. Settings come from a file for the database at url ("": none) with the lines of yaml added, so that
// tests may run beside each other.
func runWorker(t *testing.T, url, yaml, stdin string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"--config", configFile(t, url, yaml)}, args...)
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

// configFile writes a settings file.
func configFile(t *testing.T, url, yaml string) string {
	t.Helper()
	path := t.TempDir() + "/quorumbox.yaml"
	text := yaml + "\n"
	if url != "" {
		text += "database: {url: \"" + url + "\"}\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// want checks the exit code and that both outputs contain what they should.
func (o outcome) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if o.code != code || !strings.Contains(o.stdout, stdout) || !strings.Contains(o.stderr, stderr) {
		t.Errorf("got exit code %d\nstdout: %s\nstderr: %s\nwant %d, %q and %q", o.code, o.stdout, o.stderr, code, stdout, stderr)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"no command", nil, exitOK, "Available Commands", ""},
		{"unknown flag", []string{"status", "--colour"}, exitUsage, "", "worker status --help"},
		{"import without a file", []string{"import"}, exitUsage, "", "worker import --help"},
		{"import of two files", []string{"import", "a", "b"}, exitUsage, "", "worker import --help"},
		{"watch and check", []string{"status", "--watch", "--check"}, exitUsage, "", "--check has no use"},
		{"watch without a pause", []string{"status", "--watch", "--interval", "1ms"}, exitUsage, "", "--interval must be"},
		{"argument of status", []string{"status", "x"}, exitUsage, "", "worker status --help"},
		{"config alone", []string{"config"}, exitOK, "check", ""},
		{"status without a database", []string{"status"}, exitFailed, "", "no database: set DATABASE_URL"},
		{"import without a database", []string{"import", "-"}, exitFailed, "", "no database: set DATABASE_URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			runWorker(t, "", "", "", tt.args...).want(t, tt.code, tt.stdout, tt.stderr)
		})
	}
}
