package metrics_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	dto "github.com/prometheus/client_model/go"
)

// catalog is what Prometheus knows of the workers, by the name in its expressions.
type catalog map[string]known

// known is one metric there.
type known struct {
	counts bool                       // it only grows, so that rate and the like mean something
	labels map[string]map[string]bool // by name, the values; nil: any value
}

// The functions that take a counter, and only one.
func wantsCounter(function string) bool {
	return slices.Contains([]string{"rate", "irate", "increase"}, function)
}

// newCatalog has what the workers show and what Prometheus adds to it.
func newCatalog(t *testing.T) catalog {
	t.Helper()
	target := func() map[string]map[string]bool {
		return map[string]map[string]bool{"job": {"quorumbox": true}, "instance": nil}
	}
	c := catalog{
		"up":     {labels: target()},
		"ALERTS": {labels: map[string]map[string]bool{"alertname": nil, "alertstate": {"firing": true, "pending": true}}},
	}
	for _, f := range gather(t, full(t)) {
		m := known{counts: f.GetType() == dto.MetricType_COUNTER, labels: target()}
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				name := l.GetName()
				if slices.Contains([]string{"peer", "version", "revision", "go_version"}, name) {
					m.labels[name] = nil
					continue
				}
				if m.labels[name] == nil {
					m.labels[name] = map[string]bool{"other": true}
				}
				m.labels[name][l.GetValue()] = true
			}
		}
		if f.GetType() != dto.MetricType_HISTOGRAM {
			c[f.GetName()] = m
			continue
		}
		m.counts = true
		c[f.GetName()+"_sum"], c[f.GetName()+"_count"] = m, m
		buckets := known{counts: true, labels: maps.Clone(m.labels)}
		buckets.labels["le"] = nil
		c[f.GetName()+"_bucket"] = buckets
	}
	return c
}

// labels is what an expression's series are told apart by.
type labelSet map[string]bool

func (s labelSet) names() []string { return slices.Sorted(maps.Keys(s)) }

// check returns the labels of an expression's series, and what is wrong with it: names, labels and values that there are not, rates of gauges.
func (c catalog) check(expr string) (labelSet, []string) {
	parsed, err := metricsql.Parse(expr)
	if err != nil {
		return nil, []string{err.Error()}
	}
	v := visit{catalog: c}
	set := v.labels(parsed)
	return set, v.problems
}

// visit is a walk through one expression.
type visit struct {
	catalog  catalog
	problems []string
}

func (v *visit) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

func (v *visit) labels(e metricsql.Expr) labelSet {
	switch e := e.(type) {
	case *metricsql.MetricExpr:
		return v.metric(e)
	case *metricsql.RollupExpr:
		return v.labels(e.Expr)
	case *metricsql.FuncExpr:
		return v.function(e)
	case *metricsql.AggrFuncExpr:
		return v.aggregate(e)
	case *metricsql.BinaryOpExpr:
		return v.binary(e)
	default: // numbers and texts
		return nil
	}
}

func (v *visit) metric(e *metricsql.MetricExpr) labelSet {
	set := labelSet{}
	for _, filters := range e.LabelFilterss {
		name := ""
		for _, f := range filters {
			if f.Label == "__name__" {
				name = f.Value
			}
		}
		m, ok := v.catalog[name]
		if !ok {
			v.problem("there is no metric %q", name)
			continue
		}
		for label := range m.labels {
			set[label] = true
		}
		for _, f := range filters {
			if f.Label != "__name__" {
				v.filter(name, m, f)
			}
		}
	}
	return set
}

func (v *visit) filter(name string, m known, f metricsql.LabelFilter) {
	values, ok := m.labels[f.Label]
	if !ok {
		v.problem("%s has no label %s", name, f.Label)
	}
	if values == nil {
		return
	}
	for value := range strings.SplitSeq(f.Value, "|") {
		if !values[value] {
			v.problem("the label %s of %s is never %q", f.Label, name, value)
		}
	}
}

func (v *visit) function(e *metricsql.FuncExpr) labelSet {
	set := labelSet{}
	for _, arg := range e.Args {
		maps.Copy(set, v.labels(arg))
		rollup, ok := arg.(*metricsql.RollupExpr)
		if !ok {
			continue
		}
		if metric, ok := rollup.Expr.(*metricsql.MetricExpr); ok {
			name := metric.LabelFilterss[0][0].Value
			if m, ok := v.catalog[name]; ok && wantsCounter(e.Name) && !m.counts {
				v.problem("%s of %s, which is a gauge", e.Name, name)
			}
		}
	}
	switch e.Name {
	case "histogram_quantile":
		if !set["le"] {
			v.problem("histogram_quantile of what has no label le")
		}
		delete(set, "le")
	case "scalar", "vector", "time", "absent":
		return nil
	}
	return set
}

func (v *visit) aggregate(e *metricsql.AggrFuncExpr) labelSet {
	inner := labelSet{}
	for _, arg := range e.Args {
		maps.Copy(inner, v.labels(arg))
	}
	set := labelSet{}
	if strings.EqualFold(e.Modifier.Op, "without") {
		v.problem("without: name the labels that stay")
	}
	for _, label := range e.Modifier.Args {
		v.has(inner, label, e.Name+" by")
		set[label] = true
	}
	return set
}

func (v *visit) has(set labelSet, label, where string) {
	if !set[label] {
		v.problem("%s (%s): its labels are %s", where, label, strings.Join(set.names(), ", "))
	}
}

func (v *visit) binary(e *metricsql.BinaryOpExpr) labelSet {
	left, right := v.labels(e.Left), v.labels(e.Right)
	for _, label := range e.GroupModifier.Args {
		v.has(left, label, e.Op+" on")
		v.has(right, label, e.Op+" on")
	}
	set := maps.Clone(left)
	switch {
	case left == nil: // a number
		return right
	case strings.EqualFold(e.Op, "or"):
		maps.Copy(set, right)
	case len(e.JoinModifier.Args) > 0:
		for _, label := range e.JoinModifier.Args {
			v.has(right, label, e.JoinModifier.Op)
			set[label] = true
		}
	case right != nil && e.GroupModifier.Op == "" && !maps.Equal(left, right):
		v.problem("%s of what has the labels %s and %s", e.Op, strings.Join(left.names(), ", "), strings.Join(right.names(), ", "))
	}
	return set
}

// The check of the checks: each of these is a mistake that a dashboard would only show as an empty panel.
func TestCheckFindsMistakes(t *testing.T) {
	t.Parallel()
	c := newCatalog(t)
	for _, tt := range []struct{ expr, want string }{
		{`sum(rate(quorumbox_nothing_total[5m]))`, `there is no metric "quorumbox_nothing_total"`},
		{`sum by (peer) (rate(quorumbox_entries_decided_total[5m]))`, `sum by (peer): its labels are instance, job`},
		{`quorumbox_peer_lag_entries{class="ok"}`, `quorumbox_peer_lag_entries has no label class`},
		{`quorumbox_peer_state{state="gone"}`, `the label state of quorumbox_peer_state is never "gone"`},
		{`rate(quorumbox_push_attempts_total{class=~"ok|fine"}[5m])`, `the label class of quorumbox_push_attempts_total is never "fine"`},
		{`rate(quorumbox_peer_lag_entries[5m])`, `rate of quorumbox_peer_lag_entries, which is a gauge`},
		{`histogram_quantile(0.9, sum by (peer) (rate(quorumbox_push_duration_seconds_bucket[5m])))`, `histogram_quantile of what has no label le`},
		{`max by (peer) (quorumbox_refusals) / max by (class) (quorumbox_refusals)`, `/ of what has the labels peer and class`},
		{`max(quorumbox_refusals) unless on (peer) max(quorumbox_peer_lag_entries)`, `unless on (peer): its labels are `},
		{`sum without (job) (up)`, `without: name the labels that stay`},
		{`sum by (`, `unparsed`},
		{`sum by (peer, class) (rate(quorumbox_push_attempts_total{job="quorumbox",class!="ok"}[5m])) > 0`, ""},
		{`(time() - process_start_time_seconds) * on (job, instance) group_left (version) quorumbox_build_info`, ""},
	} {
		_, got := c.check(tt.expr)
		if tt.want == "" {
			if len(got) > 0 {
				t.Errorf("%s: got %q, want no problem", tt.expr, got)
			}
			continue
		}
		if !slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, tt.want) || tt.want == "unparsed" }) {
			t.Errorf("%s: got %q, want %q", tt.expr, got, tt.want)
		}
	}
}
