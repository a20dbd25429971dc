//go:build unix

package localpg

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// defaults suit a small machine that also runs the writers, workers and peers of a demo or a bench.
func defaults(durability Durability) map[string]string {
	settings := map[string]string{ //nolint:gosec // the name of a hash method is no credential
		"checkpoint_timeout":      "15min", // with max_wal_size: no checkpoint storm in the middle of a measurement
		"jit":                     "off",   // short statements; compiling them costs more than it gains
		"lc_messages":             "C",     // this package reads the log
		"listen_addresses":        "127.0.0.1",
		"log_checkpoints":         "off",
		"max_connections":         "200",
		"max_wal_size":            "4GB",
		"password_encryption":     "scram-sha-256",
		"shared_buffers":          "256MB",
		"timezone":                "UTC",
		"unix_socket_directories": "",
		"fsync":                   "on",
		"full_page_writes":        "on",
		"synchronous_commit":      "on",
	}
	if durability == NoSync {
		// synchronous_commit stays on: the log is written, only not flushed to the disk, so commits outlive the server.
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	return settings
}

// merged checks the options and returns the server's settings.
func (o Options) merged() (map[string]string, error) {
	if o.Port < 0 || o.Port > 65535 {
		return nil, fmt.Errorf("port %d is not in 0..65535", o.Port)
	}
	if o.Durability != Durable && o.Durability != NoSync {
		return nil, fmt.Errorf("durability %d is neither Durable nor NoSync", o.Durability)
	}
	name := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	settings := defaults(o.Durability)
	for _, key := range slices.Sorted(maps.Keys(o.Settings)) {
		lower := strings.ToLower(key)
		switch {
		case !name.MatchString(key):
			return nil, fmt.Errorf("setting %q is no name of a server setting", key)
		case lower == "port":
			return nil, fmt.Errorf("setting %q: use the option Port", key)
		case strings.ContainsAny(o.Settings[key], "\x00\r\n"):
			return nil, fmt.Errorf("setting %q: the value holds a line break or a zero byte", key)
		}
		settings[lower] = o.Settings[key]
	}
	return settings, nil
}

// settingsFile is the text of a configuration file, sorted by name.
func settingsFile(port int, settings map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written at each start. Set other values with: alter system\nport = %d\n", port)
	quote := strings.NewReplacer(`\`, `\\`, `'`, `''`)
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", key, quote.Replace(settings[key]))
	}
	return b.String()
}
