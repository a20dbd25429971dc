package check_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quorumbox/deploy/kubernetes/check"
)

const (
	manifests = ".."
	root      = "../../.."
	example   = "overlays/example"
)

// all is what a build must pass.
func all(t *testing.T, text []byte, secrets check.Secrets) error {
	t.Helper()
	objects, err := check.Decode(text)
	if err != nil {
		return err
	}
	for _, find := range []func() error{
		objects.Fit,
		objects.Hardened,
		func() error { return objects.Measured(metrics(t)) },
		func() error {
			if secrets == nil {
				secrets = objects.SecretsOf()
			}
			return objects.Understood(t.Context(), program, secrets)
		},
	} {
		if err := find(); err != nil {
			return err
		}
	}
	return nil
}

func TestBase(t *testing.T) {
	t.Parallel()
	text := build(t, tree(t), "base")
	if err := all(t, text, standIns()); err != nil {
		t.Error(err)
	}
}

func TestExample(t *testing.T) {
	t.Parallel()
	text := build(t, withSecrets(tree(t)), example)
	if err := all(t, text, nil); err != nil {
		t.Error(err)
	}
	if bytes.Contains(text, []byte("quorumbox:unset")) {
		t.Error("the overlay does not set the image everywhere")
	}
}

// Each component works without the others.
func TestComponents(t *testing.T) {
	t.Parallel()
	for _, component := range folders(t, "components") {
		t.Run(component, func(t *testing.T) {
			t.Parallel()
			files := tree(t)
			files["overlays/one/kustomization.yaml"] = "resources: [../../base]\ncomponents: [../../components/" + component + "]\n"
			if err := all(t, build(t, files, "overlays/one"), standIns()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every overlay has a test: an overlay that is not built here is not checked.
func TestOverlaysAreKnown(t *testing.T) {
	t.Parallel()
	if got := folders(t, "overlays"); len(got) != 1 || got[0] != filepath.Base(example) {
		t.Errorf("got the overlays %q: build each of them in a test", got)
	}
}

// No secret is in the repository: neither an object, nor a file that a generator would read.
func TestNoSecretsInTheRepository(t *testing.T) {
	t.Parallel()
	for name, text := range tree(t) {
		if regexp.MustCompile(`(?m)^kind: Secret`).MatchString(text) || strings.Contains(text, "literals:") {
			t.Errorf("%s holds a Secret", name)
		}
	}
	if _, err := check.Build(tree(t), example); err == nil || !strings.Contains(err.Error(), "secrets/") {
		t.Errorf("the example without secrets: got %v, want an error that names the missing file", err)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", manifests, "ls-files", "--", example+"/secrets").CombinedOutput()
	if err != nil {
		t.Fatalf("list what git has: %v: %s", err, out)
	}
	for file := range strings.Lines(string(out)) {
		if filepath.Base(strings.TrimSpace(file)) != ".gitignore" {
			t.Errorf("git has the secret %s", file)
		}
	}
}

// A change of settings or of a secret must replace the pods.
func TestChangesReplacePods(t *testing.T) {
	t.Parallel()
	before := worker(t, build(t, withSecrets(tree(t)), example))
	for _, file := range []string{"quorumbox.yaml", "secrets/api-key", "secrets/metrics-token"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			files := withSecrets(tree(t))
			if file == "quorumbox.yaml" {
				files[example+"/"+file] += "# changed\n"
			} else {
				files[example+"/"+file] = strings.Repeat("0", 64)
			}
			if worker(t, build(t, files, example)) == before {
				t.Error("the pods stay as they were")
			}
		})
	}
}

// worker returns the volumes of the workers.
func worker(t *testing.T, text []byte) string {
	t.Helper()
	objects, err := check.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range objects.Deployments {
		if d.Name == "quorumbox-worker" {
			return d.Spec.Template.Spec.String()
		}
	}
	t.Fatal("no workers")
	return ""
}

func tree(t *testing.T) check.Tree {
	t.Helper()
	files, err := check.ReadTree(manifests)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func folders(t *testing.T, in string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(manifests, in))
	if err != nil || len(entries) == 0 {
		t.Fatalf("nothing in %s: %v", in, err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func build(t *testing.T, files check.Tree, target string) []byte {
	t.Helper()
	text, err := check.Build(files, target)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// standIns are made-up contents of the Secrets that the base asks for.
func standIns() check.Secrets {
	return check.Secrets{
		"quorumbox-owner": {"database-url": []byte("postgres://owner@postgres.example/quorumbox")},
		"quorumbox-worker": {
			"database-url": []byte("postgres://worker@postgres.example/quorumbox"),
			"admin-token":  bytes.Repeat([]byte("a"), 64),
			"api-key":      bytes.Repeat([]byte("b"), 64),
			"signing-key":  bytes.Repeat([]byte{7}, 32),
		},
		"quorumbox-metrics": {"token": bytes.Repeat([]byte("c"), 64)},
		"quorumbox-ui":      {"password": bytes.Repeat([]byte("d"), 64)},
	}
}

// withSecrets adds the files that docs/kubernetes.md makes.
func withSecrets(files check.Tree) check.Tree {
	made := standIns()
	for name, content := range map[string][]byte{
		"owner-database-url":  made["quorumbox-owner"]["database-url"],
		"worker-database-url": made["quorumbox-worker"]["database-url"],
		"admin-token":         made["quorumbox-worker"]["admin-token"],
		"api-key":             made["quorumbox-worker"]["api-key"],
		"signing-key":         made["quorumbox-worker"]["signing-key"],
		"metrics-token":       made["quorumbox-metrics"]["token"],
		"ui-password":         made["quorumbox-ui"]["password"],
	} {
		files[example+"/secrets/"+name] = string(content)
	}
	return files
}

func metrics(t *testing.T) check.Metrics {
	t.Helper()
	text, err := os.ReadFile(root + "/docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	list := check.ParseMetrics(string(text))
	if len(list) < 20 {
		t.Fatalf("found %d metrics in docs/metrics.md: has its table changed?", len(list))
	}
	return list
}

// program is the one of this checkout.
//
//nolint:gochecknoglobals // set by TestMain alone
var program string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	folder, err := os.MkdirTemp("", "quorumbox-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the program:", err)
		return 1
	}
	defer os.RemoveAll(folder)
	program = filepath.Join(folder, "worker")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", program, "./cmd/worker") //nolint:gosec // G204: the path is ours
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	return m.Run()
}
