package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// composeFile is what Compose makes of docker-compose.yml, the part that is looked at.
type composeFile struct {
	Services map[string]struct {
		Image       string         `json:"image"`
		Profiles    []string       `json:"profiles"`
		ReadOnly    bool           `json:"read_only"`
		CapDrop     []string       `json:"cap_drop"`
		SecurityOpt []string       `json:"security_opt"`
		Healthcheck map[string]any `json:"healthcheck"`
		Networks    map[string]any `json:"networks"`
		Ports       []struct {
			HostIP string `json:"host_ip"`
		} `json:"ports"`
		Volumes []struct {
			Type     string `json:"type"`
			Source   string `json:"source"`
			Target   string `json:"target"`
			ReadOnly bool   `json:"read_only"`
		} `json:"volumes"`
	} `json:"services"`
}

// The project with all its profiles, also those whose images a test machine cannot get: what is published, mounted and allowed. This needs the
// Compose plugin and no engine.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	requireCompose(t)
	cmd := exec.CommandContext(t.Context(), "docker", "compose", "--file", "docker-compose.yml", "--env-file", os.DevNull, //nolint:gosec // fixed
		"--profile", "*", "config", "--format", "json")
	cmd.Dir = ".."
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker compose config: %v", err)
	}
	var file composeFile
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}

	profiles := map[string][]string{}
	for name, s := range file.Services {
		for _, p := range s.Profiles {
			profiles[p] = append(profiles[p], name)
			slices.Sort(profiles[p])
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: want a read-only root, no capability and no new privileges", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes a port on %q, want 127.0.0.1 only", name, p.HostIP)
			}
		}
		if _, tag, _ := strings.Cut(s.Image, ":"); tag == "" || tag == "latest" {
			t.Errorf("%s: the image %s is not pinned", name, s.Image)
		}
		for _, v := range s.Volumes {
			if v.Type != "bind" {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
			if !v.ReadOnly {
				t.Errorf("%s may write to %s", name, v.Source)
			}
		}
		if _, peers := s.Networks["peers"]; peers && strings.HasPrefix(name, "peer-") && len(s.Networks) != 1 {
			t.Errorf("%s reaches more than the network of peers: %v", name, s.Networks)
		}
	}
	want := map[string][]string{"tools": {"login", "story"}, "observability": {"grafana", "prometheus"}}
	if diff := cmp.Diff(profiles, want); diff != "" {
		t.Errorf("services of the profiles (-got +want):\n%s", diff)
	}
	for _, name := range []string{"postgres", "peer-1", "peer-2", "peer-3", "prometheus", "grafana"} { // those of worker and ui are the image's
		if file.Services[name].Healthcheck["test"] == nil {
			t.Errorf("%s has no health check", name)
		}
	}
	wantMounted(t, file)
}

// wantMounted checks that Prometheus and Grafana find the files that they are told of where those are mounted.
func wantMounted(t *testing.T, file composeFile) {
	t.Helper()
	for service, paths := range map[string][]string{
		"prometheus": {"/etc/prometheus/prometheus.yml", "/etc/prometheus/rules/*.yml"},
		"grafana": {
			"/etc/grafana/provisioning/datasources/*.yml", "/etc/grafana/provisioning/dashboards/*.yml", dashboardsPath(t) + "/*.json",
		},
	} {
		for _, path := range paths {
			var found []string
			for _, v := range file.Services[service].Volumes {
				if rest, ok := strings.CutPrefix(path, v.Target+"/"); ok && v.Type == "bind" {
					found, _ = filepath.Glob(filepath.Join(v.Source, rest)) // of a fixed pattern
				}
			}
			if len(found) == 0 {
				t.Errorf("%s finds no %s", service, path)
			}
		}
	}
}

// dashboardsPath is where Grafana is told to look for dashboards.
func dashboardsPath(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/provisioning/dashboards/quorumbox.yml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, path, ok := strings.Cut(line, "path: "); ok {
			return strings.TrimSpace(path)
		}
	}
	t.Fatal("the provider of dashboards names no path")
	return ""
}
