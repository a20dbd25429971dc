package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// graceMargin is what a pod has after its jobs have ended, to close what is left, before it is killed.
const graceMargin = 10 * time.Second

// Secrets are contents by the name of the Secret and its key.
type Secrets map[string]map[string][]byte

// SecretsOf returns the Secrets of a build.
func (all *Objects) SecretsOf() Secrets {
	secrets := Secrets{}
	for _, s := range all.Secrets {
		secrets[s.Name] = s.Data
	}
	return secrets
}

// mount lays the volumes of a container out below root, as the kubelet does below /, and returns the container's arguments and environment with the paths of that
// place. Files have the mode that the program wants of a file of its own user.
func (all *Objects) mount(root string, pods Pods, c corev1.Container, secrets Secrets) (args, environ []string, err error) {
	moved := func(text string) string {
		for _, m := range c.VolumeMounts {
			text = strings.ReplaceAll(text, m.MountPath+"/", filepath.Join(root, m.MountPath)+"/")
		}
		return text
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(pods.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			return nil, nil, fmt.Errorf("no volume %s", m.Name)
		}
		files, err := all.files(pods.Spec.Volumes[i], secrets)
		if err != nil {
			return nil, nil, err
		}
		folder := filepath.Join(root, m.MountPath)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, nil, fmt.Errorf("mount %s: %w", m.Name, err)
		}
		for name, content := range files {
			if pods.Spec.Volumes[i].ConfigMap != nil {
				content = []byte(moved(string(content)))
			}
			if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
				return nil, nil, fmt.Errorf("mount %s: %w", m.Name, err)
			}
		}
	}
	for _, a := range c.Args {
		args = append(args, moved(a))
	}
	for _, e := range c.Env {
		environ = append(environ, e.Name+"="+moved(e.Value))
	}
	return args, environ, nil
}

// files are the contents of a volume by their paths in it.
func (all *Objects) files(v corev1.Volume, secrets Secrets) (map[string][]byte, error) {
	files := map[string][]byte{}
	switch {
	case v.Secret != nil:
		data, ok := secrets[v.Secret.SecretName]
		if !ok {
			return nil, fmt.Errorf("volume %s: there is no Secret %s", v.Name, v.Secret.SecretName)
		}
		if len(v.Secret.Items) == 0 {
			return data, nil
		}
		for _, item := range v.Secret.Items {
			if files[item.Path], ok = data[item.Key]; !ok {
				return nil, fmt.Errorf("volume %s: Secret %s has no key %s", v.Name, v.Secret.SecretName, item.Key)
			}
		}
	case v.ConfigMap != nil:
		for _, m := range all.ConfigMaps {
			if m.Name == v.ConfigMap.Name {
				for name, text := range m.Data {
					files[name] = []byte(text)
				}
			}
		}
	default:
		return nil, fmt.Errorf("volume %s: neither a Secret nor a ConfigMap", v.Name)
	}
	return files, nil
}

// Understood asks the program at path what it makes of the arguments, the environment and the files of every container of a build, and whether a pod has the time
// that its jobs are given to end. Nothing is connected to.
func (all *Objects) Understood(ctx context.Context, path string, secrets Secrets) error {
	var p problems
	for _, pods := range all.Pods() {
		for _, c := range pods.Spec.Containers {
			if err := all.understood(ctx, path, pods, c, secrets); err != nil {
				p.addf("%s, container %s: %w", pods.Owner, c.Name, err)
			}
		}
	}
	return errors.Join(p...)
}

func (all *Objects) understood(ctx context.Context, path string, pods Pods, c corev1.Container, secrets Secrets) error {
	root, err := os.MkdirTemp("", "quorumbox-manifests-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(root)
	args, environ, err := all.mount(root, pods, c, secrets)
	if err != nil {
		return err
	}
	flags, command := split(args)
	// Flags and words that the program does not know are usage errors before anything is done.
	if out, err := output(ctx, path, environ, append(args, "--help")); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, out)
	} else if usage := "worker " + strings.Join(command, " ") + " ["; !strings.Contains(out, usage) {
		return fmt.Errorf("%s: the program has no such command", strings.Join(c.Args, " "))
	}
	if err := named(root, environ); err != nil {
		return err
	}
	printed, err := output(ctx, path, environ, append(flags, "config", "print"))
	if err != nil {
		return fmt.Errorf("config print: %w: %s", err, printed)
	}
	if !slices.Contains(command, "run") {
		return nil // reads no keys of peers
	}
	if out, err := output(ctx, path, environ, append(flags, "config", "check")); err != nil || strings.Contains(out, "warning:") {
		return fmt.Errorf("config check: %w: %s", err, out)
	}
	return graceful(printed, pods)
}

// split takes the arguments of a container apart: the flags of the program, and its command.
func split(args []string) (flags, command []string) {
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			flags = append(flags, a)
		} else {
			command = append(command, a)
		}
	}
	return flags, command
}

// named checks that each file that the environment names is mounted: not all of them are read before the program runs.
func named(root string, environ []string) error {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasSuffix(name, "_FILE") {
			continue
		}
		if _, err := os.Stat(value); err != nil || !strings.HasPrefix(value, root) {
			return fmt.Errorf("%s names the file %s, which is in none of the mounted volumes", name, strings.TrimPrefix(value, root))
		}
	}
	return nil
}

// graceful compares the settings that the program has printed with the time that the pod has to end.
func graceful(printed string, pods Pods) error {
	var settings struct {
		Jobs struct {
			SoftStop string `json:"soft_stop"`
		} `json:"jobs"`
	}
	if err := yaml.Unmarshal([]byte(printed), &settings); err != nil {
		return fmt.Errorf("read the printed settings: %w", err)
	}
	soft, err := time.ParseDuration(settings.Jobs.SoftStop)
	if err != nil {
		return fmt.Errorf("jobs.soft_stop: %w", err)
	}
	grace := 30 * time.Second // Kubernetes' default
	if s := pods.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	if grace < soft+graceMargin {
		return fmt.Errorf("terminationGracePeriodSeconds is %s: want at least jobs.soft_stop (%s) + %s", grace, soft, graceMargin)
	}
	return nil
}

func output(ctx context.Context, path string, environ, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // G204: the test built the program
	cmd.Env = append([]string{"HOSTNAME=pod"}, environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
