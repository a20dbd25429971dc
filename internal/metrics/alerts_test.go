package metrics_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/knadh/koanf/parsers/yaml"

	"quorumbox/internal/peer"
)

const (
	deployPath  = "../../deploy"
	runbookPath = "../../docs/runbook"
)

// rule is a recording rule or an alert of Prometheus.
type rule struct {
	Record      string
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// readYAML decodes a file into what is given. A file that is not there ends the test.
func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	raw, err := os.ReadFile(path) //nolint:gosec // a file of this repository
	if err != nil {
		t.Fatal(err)
	}
	values, err := yaml.Parser().Unmarshal(raw)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// readRules returns what is recorded and the alerts.
func readRules(t *testing.T) (recorded, alerts []rule) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deployPath, "prometheus/rules/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d files with rules, %v", len(files), err)
	}
	for _, file := range files {
		var rules struct{ Groups []struct{ Rules []rule } }
		readYAML(t, file, &rules)
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				if r.Alert != "" {
					alerts = append(alerts, r)
				} else {
					recorded = append(recorded, r)
				}
			}
		}
	}
	if len(recorded) == 0 || len(alerts) < 20 {
		t.Fatalf("got %d recorded and %d alerts", len(recorded), len(alerts))
	}
	return recorded, alerts
}

// withRecorded is the catalog with what Prometheus records. It reports what is wrong with the expressions of that.
func withRecorded(t *testing.T, recorded []rule) catalog {
	t.Helper()
	c := newCatalog(t)
	for _, r := range recorded {
		set, problems := c.check(r.Expr)
		for _, p := range problems {
			t.Errorf("%s: %s", r.Record, p)
		}
		m := known{labels: map[string]map[string]bool{}}
		for label := range set {
			m.labels[label] = nil
		}
		c[r.Record] = m
	}
	return c
}

// used is what a template of Prometheus says of labels.
func used(template string) (labels []string) {
	for _, match := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(template, -1) {
		labels = append(labels, match[1])
	}
	return labels
}

// An alert that asks for what is not there never fires.
func TestAlerts(t *testing.T) {
	t.Parallel()
	recorded, alerts := readRules(t)
	c := withRecorded(t, recorded)
	for _, a := range alerts {
		set, problems := c.check(a.Expr)
		for _, p := range problems {
			t.Errorf("%s: %s", a.Alert, p)
		}
		for _, template := range a.Annotations {
			for _, label := range used(template) {
				if !set[label] {
					t.Errorf("%s: an annotation uses the label %s; there are %v", a.Alert, label, set.names())
				}
			}
		}
		if s := a.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, s) {
			t.Errorf("%s: the severity is %q", a.Alert, s)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s: summary or description is missing", a.Alert)
		}
		if want, got := "docs/runbook/"+a.Alert+".md", a.Annotations["runbook"]; got != want {
			t.Errorf("%s: the runbook is %q, want %q", a.Alert, got, want)
		}
		if a.Alert == "QuorumboxPeerMisconfigured" {
			wantConfigurationClasses(t, a.Expr)
		}
	}
}

// wantConfigurationClasses compares the classes of an expression with those that only a person can mend.
func wantConfigurationClasses(t *testing.T, expr string) {
	t.Helper()
	var want []string
	for _, c := range peer.Classes() {
		if c.Configuration() {
			want = append(want, string(c))
		}
	}
	match := regexp.MustCompile(`class=~"([^"]*)"`).FindStringSubmatch(expr)
	if match == nil {
		t.Fatalf("no classes in %s", expr)
	}
	got := strings.Split(match[1], "|")
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("classes that only a person can mend (-want +got):\n%s", diff)
	}
}

// Each alert has a page and each page an alert, the index has all, and what a page asks Prometheus for is there.
func TestRunbook(t *testing.T) {
	t.Parallel()
	recorded, alerts := readRules(t)
	c := withRecorded(t, recorded)
	want := []string{"README.md"}
	for _, a := range alerts {
		want = append(want, a.Alert+".md")
	}
	files, err := filepath.Glob(filepath.Join(runbookPath, "*"))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	var got []string
	for _, file := range files {
		raw, err := os.ReadFile(file) //nolint:gosec // a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(file)] = string(raw)
		got = append(got, filepath.Base(file))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	for _, a := range alerts {
		page := pages[a.Alert+".md"]
		for _, heading := range []string{"# " + a.Alert + "\n", "\n## Look at\n", "\n## Do\n", "\n## By itself\n", "\n```promql\n"} {
			if !strings.Contains(page, heading) {
				t.Errorf("%s.md: %q is missing", a.Alert, heading)
			}
		}
		for _, expr := range fenced(page, "promql") {
			if _, problems := c.check(expr); len(problems) > 0 {
				t.Errorf("%s.md: %s: %q", a.Alert, expr, problems)
			}
		}
		if !strings.Contains(pages["README.md"], "| ["+a.Alert+"]("+a.Alert+".md) | "+a.Labels["severity"]+" | ") {
			t.Errorf("README.md: %s is missing, or with another severity", a.Alert)
		}
	}
	for name, page := range pages {
		for _, match := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(page, -1) {
			if _, err := os.Stat(filepath.Join(runbookPath, match[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// fenced returns the lines of a page's blocks of a language, without comments.
func fenced(page, language string) (lines []string) {
	for {
		_, rest, ok := strings.Cut(page, "\n```"+language+"\n")
		if !ok {
			return lines
		}
		block, after, _ := strings.Cut(rest, "```")
		page = after
		for line := range strings.Lines(block) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
}
