package metrics

import "github.com/prometheus/client_golang/prometheus/promauto"

func (m *Metrics) registerAdmin(with promauto.Factory) {
	m.loginFailures = newClosed(with, "quorumbox_admin_login_failures_total",
		"Requests to the admin listener whose login was wrong, by the kind that was tried. A request without a login is not counted.",
		"scheme", "basic", "bearer", Other)
}

// LoginFailed counts a wrong login at the admin listener: basic, bearer or other.
func (m *Metrics) LoginFailed(scheme string) {
	if m == nil {
		return
	}
	m.loginFailures.inc(scheme)
}
