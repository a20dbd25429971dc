package check

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// Metrics are the names in the table of docs/metrics.md, with the labels and the types that it gives them.
type Metrics map[string]struct {
	Kind   string
	Labels []string
}

// ParseMetrics reads docs/metrics.md.
func ParseMetrics(text string) Metrics {
	metrics := Metrics{}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		entry := metrics[m[1]]
		entry.Kind = m[2]
		for label := range strings.SplitSeq(m[3], ";") {
			name, _, _ := strings.Cut(label, ":")
			if name = strings.TrimSpace(name); name != "" {
				entry.Labels = append(entry.Labels, name)
			}
		}
		metrics[m[1]] = entry
	}
	return metrics
}

// scraped are the labels that Prometheus adds by itself to what it scrapes in a cluster.
func scraped() []string {
	return []string{"namespace", "pod", "job", "instance", "service", "container", "endpoint"}
}

// Measured returns every mistake in the expressions of alerts and autoscalers, joined: expressions that do not parse, names that the program does not serve, labels that
// the series does not have.
func (all *Objects) Measured(metrics Metrics) error {
	var p problems
	for _, r := range all.Rules {
		for _, g := range r.Spec.Groups {
			for _, rule := range g.Rules {
				p.expression("PrometheusRule "+r.Name+", "+rule.Alert+rule.Record, rule.Expr.String(), metrics)
			}
		}
	}
	for _, h := range all.Autoscalers {
		for _, m := range h.Spec.Metrics {
			if m.External == nil {
				continue
			}
			if metrics[m.External.Metric.Name].Kind != "gauge" {
				p.addf("HorizontalPodAutoscaler %s: the program serves no gauge %s", h.Name, m.External.Metric.Name)
			}
		}
	}
	return errors.Join(p...)
}

func (p *problems) expression(owner, text string, metrics Metrics) {
	expr, err := parser.ParseExpr(text)
	if err != nil {
		p.addf("%s: %w", owner, err)
		return
	}
	known := scraped()
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		metric, ok := metrics[selector.Name]
		if !ok {
			p.addf("%s: the program serves no %s", owner, selector.Name)
			return nil
		}
		known = append(known, metric.Labels...)
		for _, m := range selector.LabelMatchers {
			if m.Name != "__name__" && !slices.Contains(append(scraped(), metric.Labels...), m.Name) {
				p.addf("%s: %s has no label %s", owner, selector.Name, m.Name)
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if aggregate, ok := node.(*parser.AggregateExpr); ok {
			for _, label := range aggregate.Grouping {
				if !slices.Contains(known, label) {
					p.addf("%s: no series has the label %s", owner, label)
				}
			}
		}
		return nil
	})
}
