package check

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Fit returns everything that does not fit together in a build, joined: names that nothing has, labels and ports that nothing has, numbers that
// contradict each other. Secrets that are not part of the build may come from elsewhere; see [Objects.Mount].
func (all *Objects) Fit() error {
	var p problems
	p.names(all)
	for _, d := range all.Deployments {
		p.deployment(d)
	}
	for _, pods := range all.Pods() {
		p.references(pods, all)
	}
	for _, s := range all.Services {
		for _, pods := range p.selected("Service "+s.Name, labels.SelectorFromSet(s.Spec.Selector), all) {
			for _, port := range s.Spec.Ports {
				p.podPort("Service "+s.Name, pods, port.TargetPort)
			}
		}
	}
	for _, b := range all.Budgets {
		p.selected("PodDisruptionBudget "+b.Name, p.selector("PodDisruptionBudget "+b.Name, b.Spec.Selector), all)
		if b.Spec.MaxUnavailable == nil || b.Spec.MaxUnavailable.IntValue() < 1 {
			p.addf("PodDisruptionBudget %s lets no pod be evicted: no node could be drained", b.Name)
		}
	}
	for _, n := range all.NetworkPolicies {
		p.networkPolicy(n, all)
	}
	p.autoscalers(all)
	p.monitors(all)
	return errors.Join(p...)
}

type problems []error

func (p *problems) addf(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// names refuses two objects of one name, and, where there is a namespace, objects in none or another.
func (p *problems) names(all *Objects) {
	seen := map[string]bool{}
	for _, o := range all.All {
		key := fmt.Sprintf("%T %s", o, o.GetName())
		if seen[key] {
			p.addf("%s is there twice", key)
		}
		seen[key] = true
		if _, is := o.(*corev1.Namespace); !is && len(all.Namespaces) > 0 && o.GetNamespace() != all.Namespaces[0].Name {
			p.addf("%s is in the namespace %q, want %q", key, o.GetNamespace(), all.Namespaces[0].Name)
		}
	}
}

func (p *problems) selector(owner string, s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		p.addf("%s: %w", owner, err)
		return labels.Nothing()
	}
	return selector
}

// selected returns the pods that a selector takes. None, and a selector without a condition, is a problem.
func (p *problems) selected(owner string, s labels.Selector, all *Objects) (list []Pods) {
	if s.Empty() {
		p.addf("%s selects every pod of the namespace", owner)
	}
	for _, pods := range all.Pods() {
		if s.Matches(labels.Set(pods.Labels)) {
			list = append(list, pods)
		}
	}
	if len(list) == 0 {
		p.addf("%s selects no pod: its selector is %s", owner, s)
	}
	return list
}

// podPort checks that some container of the pods has the port.
func (p *problems) podPort(owner string, pods Pods, port intstr.IntOrString) {
	for _, c := range pods.Spec.Containers {
		if hasPort(c, port) {
			return
		}
	}
	p.addf("%s names the port %s, which no container of %s has", owner, port.String(), pods.Owner)
}

func hasPort(c corev1.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(have corev1.ContainerPort) bool {
		return port.Type == intstr.String && have.Name == port.StrVal || port.Type == intstr.Int && have.ContainerPort == port.IntVal
	})
}

func (p *problems) deployment(d *appsv1.Deployment) {
	owner := "Deployment " + d.Name
	if !p.selector(owner, d.Spec.Selector).Matches(labels.Set(d.Spec.Template.Labels)) {
		p.addf("%s does not select its own pods", owner)
	}
	update := d.Spec.Strategy.RollingUpdate
	if update == nil || update.MaxUnavailable == nil || update.MaxUnavailable.IntValue() != 0 || update.MaxSurge == nil || update.MaxSurge.IntValue() < 1 {
		p.addf("%s: want maxUnavailable 0 and maxSurge of at least 1, so that the old pods work until the new ones do", owner)
	}
	for _, s := range d.Spec.Template.Spec.TopologySpreadConstraints {
		if !p.selector(owner, s.LabelSelector).Matches(labels.Set(d.Spec.Template.Labels)) {
			p.addf("%s: the spread over %s does not select its pods", owner, s.TopologyKey)
		}
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			want := "/livez"
			if name == "readiness" {
				want = "/readyz"
			}
			switch {
			case probe == nil || probe.HTTPGet == nil:
				p.addf("%s, container %s: no %s probe by HTTP", owner, c.Name, name)
			case probe.HTTPGet.Path != want:
				p.addf("%s, container %s: the %s probe asks for %s, want %s", owner, c.Name, name, probe.HTTPGet.Path, want)
			case !hasPort(c, probe.HTTPGet.Port):
				p.addf("%s, container %s: the %s probe names the port %s, which the container does not have", owner, c.Name, name, probe.HTTPGet.Port.String())
			}
		}
	}
}

// references checks the names in a pod: account, ConfigMaps, volumes.
func (p *problems) references(pods Pods, all *Objects) {
	spec := pods.Spec
	if !slices.ContainsFunc(all.ServiceAccounts, func(a *corev1.ServiceAccount) bool { return a.Name == spec.ServiceAccountName }) {
		p.addf("%s: there is no ServiceAccount %s", pods.Owner, spec.ServiceAccountName)
	}
	volumes := map[string]bool{} // mounted?
	for _, v := range spec.Volumes {
		volumes[v.Name] = false
		if v.ConfigMap != nil && !slices.ContainsFunc(all.ConfigMaps, func(m *corev1.ConfigMap) bool { return m.Name == v.ConfigMap.Name }) {
			p.addf("%s: there is no ConfigMap %s", pods.Owner, v.ConfigMap.Name)
		}
	}
	for _, c := range spec.Containers {
		for _, m := range c.VolumeMounts {
			if _, ok := volumes[m.Name]; !ok {
				p.addf("%s, container %s mounts the volume %s, which there is not", pods.Owner, c.Name, m.Name)
			}
			volumes[m.Name] = true
		}
		seen := map[string]bool{}
		for _, e := range c.Env {
			if seen[e.Name] {
				p.addf("%s, container %s has the variable %s twice", pods.Owner, c.Name, e.Name)
			}
			seen[e.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		if !volumes[name] {
			p.addf("%s: nothing mounts the volume %s", pods.Owner, name)
		}
	}
}

func (p *problems) networkPolicy(n *networkingv1.NetworkPolicy, all *Objects) {
	owner := "NetworkPolicy " + n.Name
	if len(n.Spec.PolicyTypes) != 2 {
		p.addf("%s: want both policyTypes, so that nothing is open that no rule names", owner)
	}
	pods := p.selected(owner, p.selector(owner, &n.Spec.PodSelector), all)
	for _, rule := range n.Spec.Ingress {
		if len(rule.From) == 0 || len(rule.Ports) == 0 {
			p.addf("%s lets everybody in, or in to every port", owner)
		}
		for _, port := range rule.Ports {
			for _, of := range pods {
				p.podPort(owner, of, *port.Port)
			}
		}
	}
	for _, rule := range n.Spec.Egress {
		if len(rule.Ports) == 0 {
			p.addf("%s lets its pods out to every port", owner)
		}
	}
}

func (p *problems) autoscalers(all *Objects) {
	for _, h := range all.Autoscalers {
		owner := "HorizontalPodAutoscaler " + h.Name
		i := slices.IndexFunc(all.Deployments, func(d *appsv1.Deployment) bool { return d.Name == h.Spec.ScaleTargetRef.Name })
		switch {
		case h.Spec.ScaleTargetRef.Kind != "Deployment" || h.Spec.ScaleTargetRef.APIVersion != "apps/v1" || i < 0:
			p.addf("%s: there is no %s %s", owner, h.Spec.ScaleTargetRef.Kind, h.Spec.ScaleTargetRef.Name)
		case all.Deployments[i].Spec.Replicas != nil:
			p.addf("%s: its Deployment says how many replicas there are, so each apply would set the number back", owner)
		}
		if h.Spec.MinReplicas == nil || *h.Spec.MinReplicas < 2 || h.Spec.MaxReplicas < *h.Spec.MinReplicas {
			p.addf("%s: want minReplicas of at least 2, for a takeover, and maxReplicas not below", owner)
		}
		for _, m := range h.Spec.Metrics {
			if m.External == nil || m.External.Target.Value == nil {
				p.addf("%s: want an external metric with a value", owner)
			}
		}
	}
}

func (p *problems) monitors(all *Objects) {
	for _, m := range all.Monitors {
		owner := "ServiceMonitor " + m.Name
		selector, found := p.selector(owner, &m.Spec.Selector), false
		for _, s := range all.Services {
			if !selector.Matches(labels.Set(s.Labels)) {
				continue
			}
			found = true
			for _, e := range m.Spec.Endpoints {
				if !slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool { return port.Name == e.Port }) {
					p.addf("%s names the port %s, which Service %s does not have", owner, e.Port, s.Name)
				}
			}
		}
		if !found {
			p.addf("%s selects no Service: its selector is %s", owner, selector)
		}
	}
}
