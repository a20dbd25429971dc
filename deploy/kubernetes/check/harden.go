package check

import (
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// user is the one that the image runs as.
	user = 65532

	// secretMode is what a secret file may be: root's, and readable by the group of the process.
	secretMode = 0o440
)

// Hardened returns everything in a build that gives a pod more than it needs, or lets it take more than its part, joined.
func (all *Objects) Hardened() error {
	var p problems
	for _, a := range all.ServiceAccounts {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			p.addf("ServiceAccount %s: its token is mounted", a.Name)
		}
	}
	for _, s := range all.Services {
		if s.Spec.Type != corev1.ServiceTypeClusterIP {
			p.addf("Service %s is a %s: want a ClusterIP", s.Name, s.Spec.Type)
		}
	}
	for _, pods := range all.Pods() {
		p.hardenedPod(pods)
		for _, c := range append(pods.Spec.InitContainers, pods.Spec.Containers...) {
			p.hardenedContainer(pods.Owner+", container "+c.Name, c)
			p.resources(pods.Owner+", container "+c.Name, c)
		}
	}
	return errors.Join(p...)
}

func (p *problems) hardenedPod(pods Pods) {
	spec, owner := pods.Spec, pods.Owner
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		p.addf("%s: the token of its account is mounted", owner)
	}
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		p.addf("%s: enableServiceLinks is not false: a Service quorumbox... would put variables QUORUMBOX_... there, which the program refuses", owner)
	}
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		p.addf("%s shares something with its node", owner)
	}
	s := spec.SecurityContext
	if s == nil {
		p.addf("%s has no securityContext", owner)
		return
	}
	if s.RunAsNonRoot == nil || !*s.RunAsNonRoot || !is(s.RunAsUser) || !is(s.RunAsGroup) || !is(s.FSGroup) {
		p.addf("%s: want runAsNonRoot, and %d as runAsUser, runAsGroup and fsGroup", owner, user)
	}
	if s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		p.addf("%s: want the seccompProfile RuntimeDefault", owner)
	}
	for _, v := range spec.Volumes {
		switch {
		case v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != secretMode):
			p.addf("%s, volume %s: want defaultMode 0440, as the program refuses secrets that others may read", owner, v.Name)
		case v.Secret == nil && v.ConfigMap == nil:
			p.addf("%s, volume %s: neither a Secret nor a ConfigMap", owner, v.Name)
		}
	}
}

func is(id *int64) bool { return id != nil && *id == user }

func (p *problems) hardenedContainer(owner string, c corev1.Container) {
	if _, tag, _ := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":"); tag == "" || tag == "latest" {
		p.addf("%s: the image %s is not pinned", owner, c.Image)
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil {
			p.addf("%s: the variable %s does not stand here: secrets are files, as an environment is read by too many", owner, e.Name)
		}
	}
	if len(c.EnvFrom) > 0 {
		p.addf("%s: envFrom hands over whatever is there", owner)
	}
	s := c.SecurityContext
	if s == nil {
		p.addf("%s has no securityContext", owner)
		return
	}
	if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
		p.addf("%s: want allowPrivilegeEscalation false", owner)
	}
	if s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		p.addf("%s: want readOnlyRootFilesystem", owner)
	}
	if s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || len(s.Capabilities.Add) > 0 {
		p.addf("%s: want all capabilities dropped", owner)
	}
	if s.Privileged != nil && *s.Privileged || s.RunAsUser != nil || s.RunAsNonRoot != nil || s.SeccompProfile != nil {
		p.addf("%s: takes back what the pod's securityContext says", owner)
	}
}

// resources checks that a container asks for what it needs, and that Go knows the limit of its memory before the kernel acts on it.
func (p *problems) resources(owner string, c corev1.Container) {
	request, limit := c.Resources.Requests, c.Resources.Limits
	if request.Cpu().IsZero() || request.Memory().IsZero() || limit.Memory().IsZero() {
		p.addf("%s: want requests of cpu and memory, and a limit of memory", owner)
		return
	}
	if request.Memory().Cmp(*limit.Memory()) > 0 {
		p.addf("%s asks for more memory than its limit", owner)
	}
	if !limit.Cpu().IsZero() && limit.Cpu().Cmp(resource.MustParse("1")) < 0 {
		p.addf("%s: is throttled below one core, and misses deadlines", owner)
	}
	goLimit := resource.Quantity{}
	for _, e := range c.Env {
		if e.Name == "GOMEMLIMIT" {
			var err error
			if goLimit, err = resource.ParseQuantity(strings.TrimSuffix(e.Value, "B")); err != nil { // MiB here, Mi there
				p.addf("%s: GOMEMLIMIT is %q: %w", owner, e.Value, err)
			}
		}
	}
	if part := float64(goLimit.Value()) / float64(limit.Memory().Value()); part < 0.7 || part > 0.9 {
		p.addf("%s: GOMEMLIMIT is %.0f %% of the limit of memory, want 70 to 90", owner, 100*part)
	}
}
