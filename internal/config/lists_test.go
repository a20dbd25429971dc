package config_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/config"
	"quorumbox/internal/outbound"
	"quorumbox/quorum"
)

const twoPeers = "peers: [{id: a, url: 'https://a.example'}, {id: b, url: 'https://b.example'}]\n"

func namespaces(rules string) string { return twoPeers + "quorum: {namespaces: [" + rules + "]}\n" }

func outboundRules(rules string) string { return "outbound: {rules: [" + rules + "]}\n" }

// listRefusals are those of quorum.namespaces and outbound.rules.
func listRefusals() []refusal {
	return []refusal{
		{name: "namespaces that are a map", file: "quorum: {namespaces: {a: canary}}", want: []string{"quorum.namespaces is a map", "want a list, each with glob"}},
		{name: "namespace that is a text", file: namespaces("canary"), want: []string{"quorum.namespaces[0] is a single value", "ack_timeout, glob, writes"}},
		{name: "namespace that is empty", file: namespaces("~"), want: []string{"quorum.namespaces[0] is empty: give it glob"}},
		{name: "unknown key of a namespace", file: namespaces("{glob: a, write: 2}"), want: []string{"quorum.namespaces[0].write is no setting", "did you mean writes?"}},
		{name: "namespace without a glob", file: namespaces("{writes: 1}"), want: []string{"quorum.namespaces[0].glob is empty"}},
		{name: "glob of a number", file: namespaces("{glob: 7}"), want: []string{"quorum.namespaces[0].glob is 7", "quotes"}},
		{name: "bad glob", file: namespaces("{glob: a}, {glob: 'b/**/c'}"), want: []string{"quorum.namespaces[1].glob has **"}},
		{name: "glob twice", file: namespaces("{glob: 'a/*'}, {glob: b}, {glob: 'a/*'}"), want: []string{"quorum.namespaces[2].glob is there already", "quorum.namespaces[0]"}},
		{name: "glob after everything", file: namespaces("{glob: '**'}, {glob: a}"), want: []string{"quorum.namespaces[1].glob can never match", `"**"`, "quorum.namespaces[0]"}},
		{name: "glob below an earlier one", file: namespaces("{glob: 'prod/**'}, {glob: 'prod/a/*'}"), want: []string{`the earlier glob "prod/**"`}},
		{name: "more writes than members in a namespace", file: namespaces("{glob: a, writes: 4}"), want: []string{"quorum.namespaces[0].writes is 4: want at most 3", "the local commit, which counts"}},
		{name: "no writes in a namespace", file: namespaces("{glob: a, writes: 0}"), want: []string{"quorum.namespaces[0].writes is", "at least 1"}},
		{name: "short ack timeout of a namespace", file: namespaces("{glob: a, ack_timeout: 9ms}"), want: []string{"quorum.namespaces[0].ack_timeout is 9ms: want 10ms to 1m"}},
		{name: "no ack timeout of a namespace", file: namespaces("{glob: a, ack_timeout: 0s}"), want: []string{"quorum.namespaces[0].ack_timeout is 0s: want 10ms to 1m"}},
		{name: "long ack timeout of a namespace", file: "jobs: {timeout: 5m, rescue_after: 10m}\n" + namespaces("{glob: a, ack_timeout: 61s}"), want: []string{"quorum.namespaces[0].ack_timeout is 1m1s: want 10ms to 1m"}},
		{name: "ack timeout of a namespace beside job timeout", file: namespaces("{glob: a, ack_timeout: 6s}"), want: []string{"quorum.namespaces[0].ack_timeout is 6s: want less than jobs.timeout (8s) minus 2s"}},
		{name: "grace as long as a namespace's deadline", file: "quorum: {grace: 20ms, namespaces: [{glob: a, ack_timeout: 20ms}]}", want: []string{"quorum.grace is 20ms: want less than quorum.namespaces[0].ack_timeout"}},
		{name: "too many namespaces", file: manyRules("quorum: {namespaces: [%s]}", "{glob: n%d}"), want: []string{"quorum.namespaces has 101 rules: want at most 100"}},
		{name: "namespaces variable", environ: []string{"QUORUMBOX_QUORUM__NAMESPACES=[{globs: canary}]"}, want: []string{"QUORUMBOX_QUORUM__NAMESPACES: quorum.namespaces[0].globs", "did you mean glob?"}},
		{name: "variable of one namespace", environ: []string{"QUORUMBOX_QUORUM__NAMESPACES__0__GLOB=canary"}, want: []string{"is no setting"}},

		{name: "outbound that is a list", file: "outbound: [canary]", want: []string{"outbound is a list", "default, rules"}},
		{name: "outbound default", file: "outbound: {default: none}", want: []string{`outbound.default is "none": want allow or deny`}},
		{name: "outbound default empty", file: "outbound: {default: ''}", want: []string{"outbound.default is empty: want allow or deny"}},
		{name: "outbound rules that are a text", file: "outbound: {rules: canary}", want: []string{"outbound.rules is a single value: want a list, each with action and host"}},
		{name: "outbound rule with an unknown key", file: outboundRules("{action: deny, hosts: canary}"), want: []string{"outbound.rules[0].hosts", "did you mean host?"}},
		{name: "outbound rule without action", file: outboundRules("{host: a}"), want: []string{"outbound.rules[0].action is empty"}},
		{name: "outbound rule with another action", file: outboundRules("{host: a, action: drop}"), want: []string{`outbound.rules[0].action is "drop"`}},
		{name: "outbound rule without host", file: outboundRules("{action: deny}"), want: []string{"outbound.rules[0].host is empty"}},
		{name: "outbound rule with a URL", file: outboundRules("{action: deny, host: 'https://u:canary@a.example'}"), want: []string{"outbound.rules[0].host (not shown)", "without scheme"}},
		{name: "outbound rule with a port", file: outboundRules("{action: deny, host: 'a.example:9077'}"), want: []string{"outbound.rules[0].host", "without scheme, port"}},
		{name: "outbound rule with a blank", file: outboundRules("{action: deny, host: 'a .example'}"), want: []string{"outbound.rules[0].host"}},
		{name: "outbound rule with a part of an address", file: outboundRules("{action: deny, host: '10.*'}"), want: []string{"outbound.rules[0].host", "whole addresses"}},
		{name: "outbound rule with another scheme", file: outboundRules("{action: deny, host: a, scheme: ftp}"), want: []string{`outbound.rules[0].scheme is "ftp"`}},
		{name: "outbound rule with a long reason", file: outboundRules("{action: deny, host: a, reason: " + strings.Repeat("x", 201) + "}"), want: []string{"outbound.rules[0].reason", "200"}},
		{name: "outbound rule after one for all", file: outboundRules("{action: deny, host: '*'}, {action: allow, host: a}"), want: []string{"outbound.rules[1].host can never match: rules[0]"}},
		{name: "too many outbound rules", file: manyRules("outbound: {rules: [%s]}", "{action: deny, host: n%d}"), want: []string{"outbound.rules has 101 rules: want at most 100"}},

		{name: "lenient acks as a number", file: "lenient_acks: 1", want: []string{"lenient_acks is 1: want true or false"}},
		{name: "lenient acks as a word", environ: []string{"QUORUMBOX_LENIENT_ACKS=yes"}, want: []string{`QUORUMBOX_LENIENT_ACKS is "yes": want true or false`}},
		{name: "chain without credential", file: "credential_chain_file: /f", want: []string{"credential_chain_file is set and credential_file is not"}},
		{name: "alias of a chain without credential", environ: []string{"AI_MEMORY_FED_CRED_CHAIN_PATH=/f"}, want: []string{"credential_chain_file"}},
		{name: "alias of the sender", environ: []string{"AI_MEMORY_FED_IDENTITY=a b"}, want: []string{`sender_id is "a b"`}},
	}
}

func manyRules(file, rule string) string {
	var rules []string
	for i := range 101 {
		rules = append(rules, fmt.Sprintf(rule, i))
	}
	return fmt.Sprintf(file, strings.Join(rules, ", "))
}

func TestQuorumRules(t *testing.T) {
	t.Parallel()
	cfg := load(t, twoPeers+`
quorum:
  writes: 2
  ack_timeout: 3s
  namespaces:
    - {glob: "prod/*/logs", writes: 1}
    - {glob: "prod/**", writes: all, ack_timeout: 5s}
    - {glob: "team-*/**", ack_timeout: 10ms, writes: majority}
`)
	rules, err := cfg.QuorumRules()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		namespace string
		policy    quorum.Policy
		timeout   time.Duration
	}{
		{"dev", quorum.Policy{N: 3, W: 2}, 3 * time.Second},
		{"prod/a/logs", quorum.Policy{N: 3, W: 1}, 3 * time.Second}, // the timeout is the common one
		{"prod", quorum.Policy{N: 3, W: 3}, 5 * time.Second},
		{"prod/a/logs/b", quorum.Policy{N: 3, W: 3}, 5 * time.Second},
		{"team-a/b", quorum.Policy{N: 3, W: 2}, 10 * time.Millisecond},
	}
	for _, tt := range tests {
		rule := rules.Rule(rules.Match(tt.namespace))
		policy, err := rule.Writes.Policy(1 + len(cfg.Peers))
		if err != nil || policy != tt.policy || rule.AckTimeout != tt.timeout {
			t.Errorf("%s: got %v within %s, %v, want %v within %s", tt.namespace, policy, rule.AckTimeout, err, tt.policy, tt.timeout)
		}
	}
	if got, want := rules.MaxAckTimeout(), 5*time.Second; got != want {
		t.Errorf("longest: got %s, want %s", got, want)
	}
	cfg.Quorum.Namespaces[0].Glob = "/"
	if _, err := cfg.QuorumRules(); err == nil || !strings.Contains(err.Error(), "quorum.namespaces") {
		t.Errorf("bad glob: got %v, want an error", err)
	}
}

// A bad ack timeout is named as what it is, and once.
func TestNamespaceAckTimeoutIsNamedOnce(t *testing.T) {
	t.Parallel()
	_, err := config.Load(writeFile(t, namespaces("{glob: a, ack_timeout: -1s}")), []string{"QUORUMBOX_QUORUM__GRACE=0s"})
	if err == nil || strings.Count(err.Error(), "want 10ms to 1m") != 1 || strings.Contains(err.Error(), "[0].glob") {
		t.Errorf("got %v, want it to name the ack timeout alone", err)
	}
}

// What a rule leaves out comes from the settings as they are in the end, the environment included.
func TestNamespaceTakesWritesOfEnvironment(t *testing.T) {
	t.Parallel()
	cfg := load(t, namespaces("{glob: a}"), "QUORUMBOX_QUORUM__WRITES=all", "QUORUMBOX_QUORUM__ACK_TIMEOUT=1s")
	got := cfg.Quorum.Namespaces[0]
	if got.Writes.String() != "all" || got.AckTimeout != time.Second {
		t.Errorf("got %s within %s, want all within 1s", got.Writes, got.AckTimeout)
	}
}

func TestListsInEnvironment(t *testing.T) {
	t.Parallel()
	got := load(t, fullFile,
		`QUORUMBOX_QUORUM__NAMESPACES=[{"glob": "x/**", "writes": 1}]`,
		"QUORUMBOX_OUTBOUND__RULES=- action: deny\n  host: a.example\n",
		"QUORUMBOX_OUTBOUND__DEFAULT=allow",
		"QUORUMBOX_LENIENT_ACKS=false")
	if n := got.Quorum.Namespaces; len(n) != 1 || n[0].Glob != "x/**" || n[0].Writes.Count() != 1 || n[0].AckTimeout != 1500*time.Millisecond {
		t.Errorf("namespaces: got %v", n)
	}
	want := []config.OutboundRule{{Action: outbound.Deny, Host: "a.example", Scheme: "*"}}
	if !slices.Equal(got.Outbound.Rules, want) || got.Outbound.Default != outbound.Allow || got.LenientAcks {
		t.Errorf("got %v, lenient %t, want %v and allow, not lenient", got.Outbound, got.LenientAcks, want)
	}
	if empty := load(t, fullFile, "QUORUMBOX_QUORUM__NAMESPACES=[]"); len(empty.Quorum.Namespaces) != 0 {
		t.Errorf("empty list: got %v", empty.Quorum.Namespaces)
	}
}

// Checklist row 14, the settings' side: which peers the rules refuse, and why.
func TestOutboundPolicy(t *testing.T) {
	t.Parallel()
	cfg := load(t, `
outbound:
  default: deny
  rules:
    - {action: deny, host: evil.example.org, reason: known to be evil}
    - {action: allow, host: "*.example.org", scheme: https}
    - {action: allow, host: "::1"}
`)
	policy, err := cfg.Outbound.Policy()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ scheme, host, want string }{
		{"https", "a.example.org", ""},
		{"http", "a.example.org", "no rule allows it"},
		{"https", "Evil.Example.Org.", "known to be evil"},
		{"http", "::1", ""},
	} {
		got := ""
		if err := policy.Check(tt.scheme, tt.host); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.scheme, tt.host, got, tt.want)
		}
	}
	if _, err := (config.Outbound{}).Policy(); err == nil {
		t.Error("the zero Outbound has a policy")
	}
}

// Checklist row 85: the environment, then the settings' file, then host:<hostname>; our own variable before the reference's.
func TestSenderIDPrecedence(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	const file = "sender_id: host:file"
	tests := []struct {
		name    string
		file    string
		environ []string
		want    string
	}{
		{"neither", "", nil, "host:" + host},
		{"file", file, nil, "host:file"},
		{"environment over file", file, []string{"AI_MEMORY_FED_IDENTITY=ai:env"}, "ai:env"},
		{"environment alone", "", []string{"AI_MEMORY_FED_IDENTITY=ai:env"}, "ai:env"},
		{"empty is none", file, []string{"AI_MEMORY_FED_IDENTITY="}, "host:file"},
		{"our name over it", file, []string{"QUORUMBOX_SENDER_ID=ai:ours", "AI_MEMORY_FED_IDENTITY=ai:env"}, "ai:ours"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := load(t, tt.file, tt.environ...).SenderID; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCredentialFileAliases(t *testing.T) {
	t.Parallel()
	const file = "credential_file: /file\ncredential_chain_file: /file-chain\n"
	aliases := []string{"AI_MEMORY_FED_CRED_PATH=/env", "AI_MEMORY_FED_CRED_CHAIN_PATH=/env-chain"}
	ours := []string{"QUORUMBOX_CREDENTIAL_FILE=/ours", "QUORUMBOX_CREDENTIAL_CHAIN_FILE=/ours-chain"}
	for _, tt := range []struct {
		name, file  string
		environ     []string
		cred, chain string
	}{
		{"none", "", nil, "", ""},
		{"file", file, nil, "/file", "/file-chain"},
		{"aliases over file", file, aliases, "/env", "/env-chain"},
		{"one alias over file", file, aliases[:1], "/env", "/file-chain"},
		{"ours over aliases", file, append(aliases, ours...), "/ours", "/ours-chain"},
	} {
		if got := load(t, tt.file, tt.environ...); got.CredentialFile != tt.cred || got.CredentialChainFile != tt.chain {
			t.Errorf("%s: got %q and %q, want %q and %q", tt.name, got.CredentialFile, got.CredentialChainFile, tt.cred, tt.chain)
		}
	}
}

// Checklist row 81: the reference's ack timeout. Its majority is ceil(n/2), which we do not take over: [quorum.Majority].
func TestQuorumDefaults(t *testing.T) {
	t.Parallel()
	cfg := load(t, twoPeers)
	policy, err := cfg.Policy()
	if want := (quorum.Policy{N: 3, W: 2}); err != nil || policy != want || cfg.Quorum.AckTimeout != 2*time.Second {
		t.Errorf("got %v, %v within %s, want %v within 2s", policy, err, cfg.Quorum.AckTimeout, want)
	}
}

// Checklist rows 72 and 73: N is 1 + peers, and without peers the local commit is the quorum, whatever is written for it. (W = 0 is
// refused, and so is W > N: see the refusals.)
func TestQuorumWithoutPeers(t *testing.T) {
	t.Parallel()
	for _, writes := range []string{"all", "majority", "1"} {
		policy, err := load(t, "quorum: {writes: "+writes+"}").Policy()
		if want := (quorum.Policy{N: 1, W: 1}); err != nil || policy != want {
			t.Errorf("%s: got %v, %v, want %v", writes, policy, err, want)
		}
	}
}

// Checklist row 74: a peer that is listed twice would be counted twice.
func TestPeerURLTwice(t *testing.T) {
	t.Parallel()
	for _, second := range []string{"https://a.example", "https://a.example/", "https://a.example///", "HTTPS://A.EXAMPLE"} {
		_, err := config.Load(writeFile(t, "peers: [{id: a, url: 'https://a.example'}, {id: b, url: '"+second+"'}]"), nil)
		if err == nil || !strings.Contains(err.Error(), "peers[1].url is the one of peers[0]") {
			t.Errorf("%s: got %v, want an error", second, err)
		}
	}
}
