package metrics_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// panel is what is checked of a panel of Grafana.
type panel struct {
	ID      int
	Title   string
	Type    string
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		Expr         string
		LegendFormat string
		RefID        string
	}
}

type dashboard struct {
	UID         string
	Panels      []panel
	Annotations struct{ List []struct{ Expr string } }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(deployPath, "grafana/dashboards/quorumbox.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// plain is an expression with Grafana's variables filled in, as they are while all peers are shown.
func plain(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$peer", ".*").Replace(expr)
}

// expressions are those of the dashboard, by what shows them.
func (d dashboard) expressions() map[string]string {
	list := map[string]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list[p.Title+" "+target.RefID] = plain(target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		list["annotation "+a.Expr] = a.Expr
	}
	return list
}

// A panel that asks for what is not there stays empty, and nobody knows why.
func TestDashboard(t *testing.T) {
	t.Parallel()
	recorded, _ := readRules(t)
	c := withRecorded(t, recorded)
	d := readDashboard(t)
	if len(d.Panels) < 30 || len(d.expressions()) < 50 {
		t.Fatalf("got %d panels and %d expressions", len(d.Panels), len(d.expressions()))
	}
	for where, expr := range d.expressions() {
		if _, problems := c.check(expr); len(problems) > 0 {
			t.Errorf("%s: %s: %q", where, expr, problems)
		}
		if strings.Contains(expr, "$") {
			t.Errorf("%s: %s has a variable that the dashboard has not", where, expr)
		}
	}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	ids, rows := map[int]bool{}, 0
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: the id %d is not its own", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: wider than the page", p.Title)
		}
		if p.Type == "row" {
			rows++
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s: shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			set, _ := c.check(plain(target.Expr))
			for _, match := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !set[match[1]] {
					t.Errorf("%s %s: the legend names the label %s; there are %v", p.Title, target.RefID, match[1], set.names())
				}
			}
		}
	}
	if rows < 6 {
		t.Errorf("got %d rows", rows)
	}
}

// Everything that a worker shows of its own is on the dashboard or in an alert, but for what is listed here.
func TestEveryMetricIsUsed(t *testing.T) {
	t.Parallel()
	recorded, alerts := readRules(t)
	var all strings.Builder
	for _, r := range slices.Concat(recorded, alerts) {
		all.WriteString(r.Expr + "\n")
	}
	for _, expr := range readDashboard(t).expressions() {
		all.WriteString(expr + "\n")
	}
	unused := map[string]bool{
		"quorumbox_db_pool_acquires_total": true, // beside the waits, on the runbook's page
		"quorumbox_db_pool_opened_total":   true, // for who looks for connections that are closed
		"quorumbox_db_pool_waits_total":    true, // the seconds say more
		"quorumbox_peer_lanes_lagging":     true, // a detail of the lag
	}
	for _, f := range gather(t, full(t)) {
		name := f.GetName()
		asked := regexp.MustCompile(`\b` + name + `(_bucket|_sum|_count)?\b`).MatchString(all.String())
		if ours(name) && asked == unused[name] {
			t.Errorf("%s: on the dashboard or in a rule: %v", name, !unused[name])
		}
	}
}
