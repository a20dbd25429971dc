package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Tree is a copy of the manifests in memory, so that a test can change a file. Keys are paths below the folder of the manifests.
type Tree map[string]string

// ReadTree reads all manifests below dir, without the check itself and without what .gitignore keeps out of the repository.
func ReadTree(dir string) (Tree, error) {
	tree := Tree{}
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "check" || path.Base(name) == "secrets"):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		text, err := fs.ReadFile(files, name)
		tree[name] = string(text)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return tree, nil
}

// Build returns what "kubectl kustomize" prints for the folder target of tree.
func Build(tree Tree, target string) ([]byte, error) {
	memory := filesys.MakeFsInMemory()
	for name, text := range tree {
		if err := memory.WriteFile(filepath.Join("/manifests", name), []byte(text)); err != nil {
			return nil, fmt.Errorf("copy %s: %w", name, err)
		}
	}
	options := krusty.MakeDefaultOptions()
	options.PluginConfig = types.DisabledPluginConfig()
	resources, err := krusty.MakeKustomizer(options).Run(memory, filepath.Join("/manifests", target))
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", target, err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, fmt.Errorf("print %s: %w", target, err)
	}
	return text, nil
}

// Objects are the objects of a build, by kind.
type Objects struct {
	Namespaces      []*corev1.Namespace
	ServiceAccounts []*corev1.ServiceAccount
	ConfigMaps      []*corev1.ConfigMap
	Secrets         []*corev1.Secret
	Services        []*corev1.Service
	Jobs            []*batchv1.Job
	Deployments     []*appsv1.Deployment
	Budgets         []*policyv1.PodDisruptionBudget
	NetworkPolicies []*networkingv1.NetworkPolicy
	Autoscalers     []*autoscalingv2.HorizontalPodAutoscaler
	Monitors        []*monitoringv1.ServiceMonitor
	Rules           []*monitoringv1.PrometheusRule
	All             []metav1.Object
}

// Decode reads the objects of a build. An object whose type is unknown, and a field that its type does not have or has twice, is an error; all of them are
// returned together.
func Decode(text []byte) (Objects, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme, networkingv1.AddToScheme, autoscalingv2.AddToScheme,
		monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return Objects{}, fmt.Errorf("know the API types: %w", err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var (
		all      Objects
		problems []error
	)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		object, _, err := decoder.Decode([]byte(document), nil, nil)
		if err == nil {
			err = all.add(object)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("decode %s: %w", title(document), err))
		}
	}
	return all, errors.Join(problems...)
}

// title is the kind and the name in the text of an object, for errors.
func title(document string) string {
	kind, name, metadata := "?", "?", false
	for line := range strings.SplitSeq(document, "\n") {
		if after, ok := strings.CutPrefix(line, "kind: "); ok {
			kind = after
		}
		if after, ok := strings.CutPrefix(line, "  name: "); ok && metadata {
			name = after
		}
		if !strings.HasPrefix(line, " ") {
			metadata = line == "metadata:"
		}
	}
	return kind + " " + name
}

func (all *Objects) add(object runtime.Object) error {
	switch o := object.(type) {
	case *corev1.Namespace:
		all.Namespaces = append(all.Namespaces, o)
	case *corev1.ServiceAccount:
		all.ServiceAccounts = append(all.ServiceAccounts, o)
	case *corev1.ConfigMap:
		all.ConfigMaps = append(all.ConfigMaps, o)
	case *corev1.Secret:
		all.Secrets = append(all.Secrets, o)
	case *corev1.Service:
		all.Services = append(all.Services, o)
	case *batchv1.Job:
		all.Jobs = append(all.Jobs, o)
	case *appsv1.Deployment:
		all.Deployments = append(all.Deployments, o)
	case *policyv1.PodDisruptionBudget:
		all.Budgets = append(all.Budgets, o)
	case *networkingv1.NetworkPolicy:
		all.NetworkPolicies = append(all.NetworkPolicies, o)
	case *autoscalingv2.HorizontalPodAutoscaler:
		all.Autoscalers = append(all.Autoscalers, o)
	case *monitoringv1.ServiceMonitor:
		all.Monitors = append(all.Monitors, o)
	case *monitoringv1.PrometheusRule:
		all.Rules = append(all.Rules, o)
	default:
		return fmt.Errorf("%T is a type that nothing here looks at: teach the check about it", object)
	}
	accessor, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T has no metadata", object)
	}
	all.All = append(all.All, accessor)
	return nil
}

// Pods are what runs: a template with the name of what makes it.
type Pods struct {
	Owner  string // "Deployment quorumbox-worker"
	Labels map[string]string
	Spec   corev1.PodSpec
}

// Pods returns the templates of all pods.
func (all *Objects) Pods() (list []Pods) {
	for _, d := range all.Deployments {
		list = append(list, Pods{Owner: "Deployment " + d.Name, Labels: d.Spec.Template.Labels, Spec: d.Spec.Template.Spec})
	}
	for _, j := range all.Jobs {
		list = append(list, Pods{Owner: "Job " + j.Name, Labels: j.Spec.Template.Labels, Spec: j.Spec.Template.Spec})
	}
	return list
}
