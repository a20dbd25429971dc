package check_test

import (
	"strings"
	"testing"

	"quorumbox/deploy/kubernetes/check"
)

const (
	workerFile  = "base/worker.yaml"
	serviceFile = "base/service.yaml"
	policyFile  = "base/networkpolicy.yaml"
	budgetFile  = "base/poddisruptionbudget.yaml"
	accountFile = "base/serviceaccount.yaml"
	migrateFile = "base/migrate.yaml"
	scalerFile  = "components/autoscaling/horizontalpodautoscaler.yaml"
	scalingFile = "components/autoscaling/kustomization.yaml"
	monitorFile = "components/prometheus-operator/servicemonitor.yaml"
	ruleFile    = "components/prometheus-operator/prometheusrule.yaml"
	uiFile      = "components/ui/ui.yaml"
	overlayFile = example + "/kustomization.yaml"
	settings    = example + "/quorumbox.yaml"
)

// The check of the check: each mistake is made in a copy of the manifests, and must be found.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file string
		old, new   string
		want       string // part of the error
	}{
		// Fields and their types.
		{name: "misspelt field of a pod", file: workerFile, old: "terminationGracePeriodSeconds:", new: "terminationGracePeriodSecond:", want: "unknown field"},
		{name: "misspelt field of a probe", file: workerFile, old: "failureThreshold: 30", new: "failureTreshold: 30", want: "unknown field"},
		{name: "field at the wrong place", file: budgetFile, old: "spec:\n", new: "spec:\n  minReadySeconds: 1\n", want: "unknown field"},
		{name: "text for a number", file: workerFile, old: "minReadySeconds: 5", new: "minReadySeconds: five", want: "cannot unmarshal"},
		{name: "kind that there is not", file: budgetFile, old: "kind: PodDisruptionBudget", new: "kind: PodDisruptionBudged", want: "no kind"},
		{name: "version that there is not", file: scalerFile, old: "autoscaling/v2", new: "autoscaling/v2beta2", want: "no kind"},
		{name: "misspelt field of a CRD", file: monitorFile, old: "scrapeTimeout", new: "scrapeTimeOut", want: "unknown field"},
		{name: "misspelt field of an alert", file: ruleFile, old: "          for: 5m\n          labels: {severity: critical}\n          annotations:\n            summary: No worker", new: "          fore: 5m\n          labels: {severity: critical}\n          annotations:\n            summary: No worker", want: "unknown field"},

		// Names, labels and ports.
		{name: "selector of the workers", file: workerFile, old: "  selector:\n    matchLabels:\n      app.kubernetes.io/name: quorumbox", new: "  selector:\n    matchLabels:\n      app.kubernetes.io/name: quorumbix", want: "does not select its own pods"},
		{name: "selector of the service", file: serviceFile, old: "component: worker\n  ports", new: "component: workers\n  ports", want: "Service quorumbox-worker selects no pod"},
		{name: "empty selector", file: serviceFile, old: "  selector:\n    app.kubernetes.io/name: quorumbox\n    app.kubernetes.io/component: worker\n", new: "", want: "selects every pod"},
		{name: "selector of the budget", file: budgetFile, old: "      app.kubernetes.io/component: worker\n", new: "      app.kubernetes.io/component: wrker\n", want: "PodDisruptionBudget quorumbox-worker selects no pod"},
		{name: "budget that lets nothing go", file: budgetFile, old: "maxUnavailable: 1", new: "maxUnavailable: 0", want: "no node could be drained"},
		{name: "spread of other pods", file: workerFile, old: "labelSelector: &pods\n            matchLabels:\n              app.kubernetes.io/name: quorumbox\n", new: "labelSelector: &pods\n            matchLabels:\n              app.kubernetes.io/name: other\n", want: "does not select its pods"},
		{name: "update that takes the old pod first", file: workerFile, old: "maxUnavailable: 0", new: "maxUnavailable: 1", want: "want maxUnavailable 0"},
		{name: "port of a probe", file: workerFile, old: "{path: /readyz, port: admin}", new: "{path: /readyz, port: http}", want: "readiness probe names the port http"},
		{name: "path of a probe", file: workerFile, old: "httpGet: {path: /readyz", new: "httpGet: {path: /livez", want: "readiness probe asks for /livez"},
		{name: "port of the service", file: serviceFile, old: "targetPort: admin", new: "targetPort: 9090", want: "names the port 9090"},
		{name: "port of the network policy", file: policyFile, old: "port: admin", new: "port: metrics", want: "NetworkPolicy quorumbox-worker names the port metrics"},
		{name: "policy for everybody", file: policyFile, old: "    - from:\n        - namespaceSelector:\n            matchLabels: {kubernetes.io/metadata.name: monitoring}\n      ports:", new: "    - ports:", want: "lets everybody in"},
		{name: "policy without egress", file: policyFile, old: "policyTypes: [Ingress, Egress]\n  egress:", new: "policyTypes: [Ingress]\n  egress:", want: "want both policyTypes"},
		{name: "policy for no pod", file: policyFile, old: "      app.kubernetes.io/component: worker\n  policyTypes", new: "      app.kubernetes.io/component: wrker\n  policyTypes", want: "NetworkPolicy quorumbox-worker selects no pod"},
		{name: "account", file: workerFile, old: "serviceAccountName: quorumbox", new: "serviceAccountName: default", want: "no ServiceAccount default"},
		{name: "volume", file: workerFile, old: "{name: config, mountPath", new: "{name: confg, mountPath", want: "mounts the volume confg"},
		{name: "ConfigMap", file: workerFile, old: "configMap: {name: quorumbox}", new: "configMap: {name: quorumbix}", want: "no ConfigMap quorumbix"},
		{name: "target of the autoscaler", file: scalerFile, old: "    name: quorumbox-worker\n  minReplicas", new: "    name: quorumbox\n  minReplicas", want: "there is no Deployment quorumbox"},
		{name: "replicas beside an autoscaler", file: scalingFile, old: "{op: remove, path: /spec/replicas}", new: "{op: replace, path: /spec/replicas, value: 3}", want: "set the number back"},
		{name: "fewer than two workers", file: scalerFile, old: "minReplicas: 2", new: "minReplicas: 1", want: "want minReplicas of at least 2"},
		{name: "port of the monitor", file: monitorFile, old: "port: admin", new: "port: metrics", want: "ServiceMonitor quorumbox-worker names the port metrics"},
		{name: "selector of the monitor", file: monitorFile, old: "      app.kubernetes.io/component: worker\n  endpoints", new: "      app.kubernetes.io/component: wrker\n  endpoints", want: "selects no Service"},

		// Rights and resources.
		{name: "token of the account", file: accountFile, old: "automountServiceAccountToken: false", new: "automountServiceAccountToken: true", want: "its token is mounted"},
		{name: "token in the pod", file: workerFile, old: "automountServiceAccountToken: false", new: "automountServiceAccountToken: true", want: "the token of its account"},
		{name: "links of services", file: workerFile, old: "enableServiceLinks: false", new: "enableServiceLinks: true", want: "enableServiceLinks is not false"},
		{name: "root", file: migrateFile, old: "runAsUser: 65532", new: "runAsUser: 0", want: "want runAsNonRoot"},
		{name: "no fsGroup", file: workerFile, old: "        fsGroup: 65532\n", new: "", want: "want runAsNonRoot"},
		{name: "seccomp", file: workerFile, old: "RuntimeDefault", new: "Unconfined", want: "want the seccompProfile"},
		{name: "escalation", file: uiFile, old: "allowPrivilegeEscalation: false", new: "allowPrivilegeEscalation: true", want: "allowPrivilegeEscalation"},
		{name: "writable root", file: migrateFile, old: "readOnlyRootFilesystem: true", new: "readOnlyRootFilesystem: false", want: "readOnlyRootFilesystem"},
		{name: "capabilities", file: workerFile, old: "drop: [ALL]", new: "drop: [NET_RAW]", want: "capabilities"},
		{name: "mode of a secret", file: workerFile, old: "defaultMode: 0440 #", new: "defaultMode: 0444 #", want: "want defaultMode 0440"},
		{name: "the node's folder", file: workerFile, old: "configMap: {name: quorumbox}", new: "hostPath: {path: /etc}", want: "neither a Secret nor a ConfigMap"},
		{name: "secret as a variable", file: workerFile, old: "{name: GOMEMLIMIT, value: 160MiB}", new: "{name: GOMEMLIMIT, valueFrom: {secretKeyRef: {name: quorumbox-worker, key: api-key}}}", want: "secrets are files"},
		{name: "image without a version", file: overlayFile, old: "newTag: 0.1.0", new: "newTag: latest", want: "is not pinned"},
		{name: "no requests", file: workerFile, old: "requests: {cpu: 250m, memory: 100Mi}", new: "requests: {cpu: 250m}", want: "want requests of cpu and memory"},
		{name: "throttled", file: workerFile, old: "limits: {memory: 200Mi}", new: "limits: {memory: 200Mi, cpu: 300m}", want: "is throttled"},
		{name: "Go's limit", file: workerFile, old: "value: 160MiB", new: "value: 300MiB", want: "GOMEMLIMIT is 150 %"},
		{name: "open to the world", file: serviceFile, old: "type: ClusterIP", new: "type: NodePort", want: "want a ClusterIP"},

		// What Prometheus is asked.
		{name: "metric of an alert", file: ruleFile, old: "(quorumbox_refusals)", new: "(quorumbox_refusal)", want: "serves no quorumbox_refusal"},
		{name: "label of an alert", file: ruleFile, old: "by (namespace, peer) (quorumbox_peer_oldest", new: "by (namespace, per) (quorumbox_peer_oldest", want: "has the label per"},
		{name: "matcher of an alert", file: ruleFile, old: "{class=~", new: "{status=~", want: "has no label status"},
		{name: "syntax of an alert", file: ruleFile, old: "[5m])) > 0\n          for: 5m\n          labels: {severity: critical}\n          annotations:\n            summary: Quorums", new: "[5m]) > 0\n          for: 5m\n          labels: {severity: critical}\n          annotations:\n            summary: Quorums", want: "parse error"},
		{name: "metric of the autoscaler", file: scalerFile, old: "name: quorumbox_undispatched_oldest_seconds", new: "name: quorumbox_undispatched_age", want: "serves no gauge quorumbox_undispatched_age"},

		// What the program makes of it.
		{name: "misspelt setting", file: settings, old: "quorum:", new: "qorum:", want: "qorum"},
		{name: "impossible quorum", file: settings, old: "writes: majority", new: "writes: 5", want: "at most 4"},
		{name: "key that is not mounted", file: settings, old: "worker/api-key", new: "worker/apikey", want: "apikey"},
		{name: "address without a login", file: workerFile, old: "            - {name: QUORUMBOX_ADMIN__TOKEN_FILE, value: /run/quorumbox/worker/admin-token}\n", new: "", want: "admin.listen"},
		{name: "variable that is no setting", file: workerFile, old: "name: QUORUMBOX_ADMIN__LISTEN", new: "name: QUORUMBOX_ADMIN_LISTEN", want: "QUORUMBOX_ADMIN_LISTEN"},
		{name: "token that is not mounted", file: workerFile, old: "/run/quorumbox/metrics/token}", new: "/run/quorumbox/metrics/tokens}", want: "metrics/tokens"},
		{name: "password that is not mounted", file: uiFile, old: "/run/quorumbox/ui/password}", new: "/run/quorumbox/password}", want: "in none of the mounted volumes"},
		{name: "item of a secret", file: uiFile, old: "{key: database-url,", new: "{key: database,", want: "has no key database"},
		{name: "command that there is not", file: uiFile, old: "quorumbox.yaml, ui]", new: "quorumbox.yaml, uix]", want: "uix"},
		{name: "flag that there is not", file: workerFile, old: "quorumbox.yaml, run]", new: "quorumbox.yaml, run, --fast]", want: "--fast"},
		{name: "killed too early", file: workerFile, old: "terminationGracePeriodSeconds: 30", new: "terminationGracePeriodSeconds: 15", want: "want at least jobs.soft_stop"},
		{name: "longer stop than the pod has", file: settings, old: "quorum:", new: "jobs: {soft_stop: 25s}\nquorum:", want: "want at least jobs.soft_stop (25s)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			files := withSecrets(tree(t))
			text := files[test.file]
			if !strings.Contains(text, test.old) {
				t.Fatalf("%s has no %q: the test is out of date", test.file, test.old)
			}
			files[test.file] = strings.Replace(text, test.old, test.new, 1)
			built, err := check.Build(files, example)
			if err == nil {
				err = all(t, built, nil)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}
