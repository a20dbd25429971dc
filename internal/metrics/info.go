package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Build says what the program was built from.
type Build struct {
	Version   string // of the module, or (devel)
	Revision  string // the commit; empty: not known
	GoVersion string
}

// Limits are settings that alerts compare measurements with.
type Limits struct {
	BacklogEntries int           // most entries that are kept for a lagging peer
	BacklogAge     time.Duration // how long they are kept
}

func (m *Metrics) registerInfo(with promauto.Factory) {
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m.build = with.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quorumbox_build_info",
		Help: "1, with what the program was built from as labels.",
	}, []string{"version", "revision", "go_version"})
	m.backlogEntries = gauge("quorumbox_backlog_limit_entries",
		"Setting retention.backlog_entries: a peer that misses more gets a snapshot in place of the log.")
	m.backlogAge = gauge("quorumbox_backlog_limit_seconds",
		"Setting retention.backlog_age: a peer that misses older entries gets a snapshot in place of the log.")
}

// SetBuild says what the program was built from. Call it once.
func (m *Metrics) SetBuild(b Build) {
	if m == nil {
		return
	}
	m.build.WithLabelValues(b.Version, b.Revision, b.GoVersion).Set(1)
}

// SetLimits says what the settings are.
func (m *Metrics) SetLimits(l Limits) {
	if m == nil {
		return
	}
	m.backlogEntries.Set(float64(l.BacklogEntries))
	m.backlogAge.Set(l.BacklogAge.Seconds())
}
