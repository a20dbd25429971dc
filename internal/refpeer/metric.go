package refpeer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// writeMetric writes one metric with a sample for each value of its label. An
// empty label stands for a metric without one.
func writeMetric[K ~string](b *strings.Builder, name, kind, help, label string, values map[K]int64) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	for _, value := range slices.Sorted(maps.Keys(values)) {
		if label == "" {
			fmt.Fprintf(b, "%s %d\n", name, values[value])
			continue
		}
		fmt.Fprintf(b, "%s{%s=%q} %d\n", name, label, string(value), values[value])
	}
}
