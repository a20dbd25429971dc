package metrics_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// promtool runs Prometheus' own checker in a folder, with what it is to do.
func promtool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		const text = "promtool is not installed: take it from Debian's package prometheus, as .ci/run does"
		if os.Getenv("CI") == "true" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program above
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func wantPromtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := promtool(t, dir, args...); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// glob lists files of deploy/prometheus.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deployPath, "prometheus", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for i, file := range files {
		if files[i], err = filepath.Abs(file); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// The configuration as it is, but with a token that is there.
func TestPromtoolChecksTheConfiguration(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(deployPath, "prometheus/prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	const token = "/run/quorumbox/metrics-token" //nolint:gosec // G101: a path
	if n := strings.Count(string(raw), token); n != 1 {
		t.Fatalf("the configuration names %s %d times, want once", token, n)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "rules"), os.DirFS(filepath.Join(deployPath, "prometheus/rules"))); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), token, filepath.Join(dir, "token"))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(text), 0o600); err != nil { //nolint:gosec // G703: a folder of this test
		t.Fatal(err)
	}
	wantPromtool(t, dir, "check", "config", "prometheus.yml")
}

func TestPromtoolTestsTheRules(t *testing.T) {
	t.Parallel()
	wantPromtool(t, ".", append([]string{"test", "rules"}, glob(t, "tests/*.yml")...)...)
}

// Of each alert there is a case in which it fires and one in which it does not.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	_, alerts := readRules(t)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, file := range glob(t, "tests/*.yml") {
		var cases struct {
			Tests []struct {
				AlertRuleTest []struct {
					Alertname string
					ExpAlerts []any `json:"exp_alerts"`
				} `json:"alert_rule_test"`
			}
		}
		readYAML(t, file, &cases)
		for _, test := range cases.Tests {
			for _, c := range test.AlertRuleTest {
				if len(c.ExpAlerts) > 0 {
					fires[c.Alertname] = true
				} else {
					quiet[c.Alertname] = true
				}
			}
		}
	}
	for _, a := range alerts {
		if !fires[a.Alert] || !quiet[a.Alert] {
			t.Errorf("%s: a case in which it fires: %v, and in which it does not: %v", a.Alert, fires[a.Alert], quiet[a.Alert])
		}
	}
}

// Prometheus itself reads what the dashboard and the runbook ask it for.
func TestPromtoolReadsTheExpressions(t *testing.T) {
	t.Parallel()
	var all []string
	for _, expr := range readDashboard(t).expressions() {
		all = append(all, expr)
	}
	pages, err := filepath.Glob(filepath.Join(runbookPath, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range pages {
		page, err := os.ReadFile(file) //nolint:gosec // a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fenced(string(page), "promql")...)
	}
	slices.Sort(all)
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n")
	for i, expr := range slices.Compact(all) {
		fmt.Fprintf(&b, "  - {record: \"r%d\", expr: %q}\n", i, expr)
	}
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "expressions.yml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(b.String())
	wantPromtool(t, dir, "check", "rules", "expressions.yml")
	write(b.String() + "  - {record: \"bad\", expr: \"rate(up)\"}\n")
	if out, err := promtool(t, dir, "check", "rules", "expressions.yml"); err == nil {
		t.Errorf("promtool takes an expression that is none:\n%s", out)
	}
}
