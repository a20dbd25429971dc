package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/identity"
)

// runKeys runs the command keys by itself.
func runKeys(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := newKeysCommand()
	refuseBadArguments(cmd)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	code := exitOK
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		code = exitFailed
		if _, usage := errors.AsType[*usageError](err); usage {
			code = exitUsage
		}
		stderr.WriteString("worker: " + err.Error())
	}
	return outcome{code, stdout.String(), stderr.String()}
}

// keyFolder is a folder with keys of root, region-ca and ai:leader.
func keyFolder(t *testing.T) (dir string, file func(name string) string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // G302: a folder
		t.Fatal(err)
	}
	for _, id := range []string{"root", "region-ca", "ai:leader"} {
		runKeys(t, "generate", "--agent-id", id, "--dir", dir).want(t, exitOK, id+".priv", "")
	}
	return dir, func(name string) string { return filepath.Join(dir, name) }
}

// issueArgs are the arguments that issue a credential.
func issueArgs(file func(string) string, issuer, subject, out string, more ...string) []string {
	return append([]string{
		"credential", "--issuer-key", file(issuer + ".priv"), "--issuer-id", issuer, "--subject", subject,
		"--subject-key", file(subject + ".pub"), "--trust-domain", "fleet.example", "--out", file(out),
	}, more...)
}

// bundleOf is a folder with the public key of the root alone.
func bundleOf(t *testing.T, file func(string) string) string {
	t.Helper()
	key, err := os.ReadFile(file("root.pub"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := identity.WriteFile(filepath.Join(dir, "root.pub"), key); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestKeysGenerateAndShow(t *testing.T) {
	t.Parallel()
	_, file := keyFolder(t)
	public, err := os.ReadFile(file("ai:leader.pub"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(file("ai:leader.priv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ai:leader.pub", "ai:leader.priv"} {
		o := runKeys(t, "show", file(name))
		for _, want := range []string{
			"ai:leader\n", hex.EncodeToString(public), base64.RawURLEncoding.EncodeToString(public), identity.Fingerprint(public),
		} {
			o.want(t, exitOK, want, "")
		}
		for _, secret := range []string{string(seed), hex.EncodeToString(seed), base64.RawURLEncoding.EncodeToString(seed), base64.StdEncoding.EncodeToString(seed)} {
			if strings.Contains(o.stdout+o.stderr, secret) {
				t.Errorf("%s: the seed is shown", name)
			}
		}
	}
	runKeys(t, "generate", "--agent-id", "ai:leader", "--dir", filepath.Dir(file("x"))).want(t, exitFailed, "", "is not written over")
	if again, err := os.ReadFile(file("ai:leader.priv")); err != nil || !bytes.Equal(again, seed) {
		t.Errorf("the key has changed (%v)", err)
	}
}

func TestKeysGenerateTakesTheFolderFromTheEnvironment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	t.Setenv(identity.KeyDirEnv, dir)
	runKeys(t, "generate", "--agent-id", "host:a").want(t, exitOK, filepath.Join(dir, "host:a.priv"), "")
	t.Setenv(identity.KeyDirEnv, "")
	home := t.TempDir()
	t.Setenv("HOME", home)
	runKeys(t, "generate", "--agent-id", "host:a").want(t, exitOK, filepath.Join(home, ".config", "ai-memory", "keys", "host:a.pub"), "")
}

func TestKeysCredential(t *testing.T) {
	t.Parallel()
	_, file := keyFolder(t)
	bundle := bundleOf(t, file)
	runKeys(t, issueArgs(file, "root", "ai:leader", "leader.cred")...).want(t, exitOK, "valid for another 59 min", "")
	o := runKeys(t, "credential", "--verify", "--bundle", bundle, "--trust-domain", "fleet.example", "--subject", "ai:leader", file("leader.cred"))
	o.want(t, exitOK, "valid ", "")
	o.want(t, exitOK, "ai:leader", "")
	text, err := os.ReadFile(file("leader.cred"))
	if err != nil {
		t.Fatal(err)
	}
	credential, err := identity.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if c := credential.Claims(); c.NotAfter.Sub(c.NotBefore) != time.Hour+time.Minute {
		t.Errorf("window: got %s to %s, want a minute and an hour", c.NotBefore, c.NotAfter)
	}
	// A new one replaces it.
	begin := time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
	runKeys(t, issueArgs(file, "root", "ai:leader", "leader.cred", "--not-before", begin, "--lifetime", "30m")...).want(t, exitOK, "valid in 47 h", "")
	runKeys(t, "credential", "--verify", "--bundle", bundle, file("leader.cred")).want(t, exitFailed, "", "credential_not_yet_valid")
	runKeys(t, issueArgs(file, "root", "ai:leader", "leader.cred", "--not-before", "2020-01-01T00:00:00Z")...).want(t, exitOK, "expired ", "")
	runKeys(t, "show", file("leader.cred")).want(t, exitOK, "2020-01-01T00:00:00Z to 2020-01-01T01:00:00Z, expired ", "")
	runKeys(t, "credential", "--verify", "--bundle", bundle, file("leader.cred")).want(t, exitFailed, "", "credential_expired")
}

func TestKeysChain(t *testing.T) {
	t.Parallel()
	_, file := keyFolder(t)
	bundle := bundleOf(t, file)
	runKeys(t, issueArgs(file, "root", "region-ca", "region.cred", "--lifetime", "24h")...).want(t, exitOK, "region-ca", "")
	runKeys(t, "chain", "--out", file("region.chain"), file("region.cred")).want(t, exitOK, "region-ca", "")
	runKeys(t, issueArgs(file, "region-ca", "ai:leader", "leader.cred", "--chain", file("region.chain"))...).want(t, exitOK, "ai:leader", "")
	verify := []string{"credential", "--verify", "--bundle", bundle, file("leader.cred")}
	runKeys(t, append(verify, "--chain", file("region.chain"))...).want(t, exitOK, "region-ca", "")
	runKeys(t, verify...).want(t, exitFailed, "", "credential_unknown_issuer")
	runKeys(t, append(verify, "--chain", file("region.chain"), "--trust-domain", "x")...).want(t, exitFailed, "", "credential_wrong_trust_domain")
	runKeys(t, append(verify, "--chain", file("region.chain"), "--subject", "ai:other")...).want(t, exitFailed, "", "is valid for ai:leader, not for ai:other")
	runKeys(t, "show", file("region.chain")).want(t, exitOK, "credential chain of 1, anchor first", "")

	// What outlives the chain, and what does not come from it.
	args := issueArgs(file, "region-ca", "ai:leader", "long.cred", "--chain", file("region.chain"), "--lifetime", "48h")
	runKeys(t, args...).want(t, exitOK, "", "note: region-ca in the chain is valid until")
	args = issueArgs(file, "root", "ai:leader", "wrong.cred", "--chain", file("region.chain"))
	runKeys(t, args...).want(t, exitFailed, "", "--chain does not lead to the issuer: chain_name_mismatch")
	if _, err := os.Stat(file("wrong.cred")); err == nil {
		t.Error("a credential that is under no chain was written")
	}
	runKeys(t, "chain", "--out", file("x"), file("region.cred"), file("region.cred")).want(t, exitFailed, "", "no chain in this order: chain_name_mismatch")
	runKeys(t, "chain", "--out", file("deep.chain"), file("region.cred"), file("leader.cred")).want(t, exitOK, "", "note: a chain of 2")
	runKeys(t, append(verify, "--chain", file("deep.chain"))...).want(t, exitFailed, "", "chain_too_deep")
}

func TestKeysRefuse(t *testing.T) {
	t.Parallel()
	dir, file := keyFolder(t)
	bundle := bundleOf(t, file)
	runKeys(t, issueArgs(file, "root", "ai:leader", "leader.cred")...).want(t, exitOK, "", "")
	for name, text := range map[string]string{"garbage": "v1=????", "short.pub": "short", "open.priv": strings.Repeat("s", ed25519.SeedSize)} {
		if err := identity.WriteFile(file(name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(more ...string) []string { return issueArgs(file, "root", "ai:leader", "x.cred", more...) }
	verify := func(more ...string) []string { return append([]string{"credential", "--verify"}, more...) }
	for _, tt := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"no id", []string{"generate", "--dir", dir}, exitUsage, "--agent-id is missing"},
		{"an argument of generate", []string{"generate", "x"}, exitUsage, "unknown command"},
		{"id with a slash", []string{"generate", "--dir", dir, "--agent-id", "a/b"}, exitFailed, "choose an id without"},
		{"reserved id", []string{"generate", "--dir", dir, "--agent-id", "daemon"}, exitFailed, "reserved"},
		{"show nothing", []string{"show"}, exitUsage, "at least 1"},
		{"show what is not there", []string{"show", file("none.pub")}, exitFailed, "no such file"},
		{"show garbage", []string{"show", file("garbage")}, exitFailed, "no credential (credential_malformed"},
		{"show a short key", []string{"show", file("short.pub")}, exitFailed, "has 5 bytes"},
		{"show a key that others can read", []string{"show", file("open.priv")}, exitFailed, "chmod 600"},

		{"nothing to issue", []string{"credential"}, exitUsage, "missing: --issuer-key, --issuer-id, --subject, --subject-key, --trust-domain, --out"},
		{"a file beside --out", issue("file"), exitUsage, "a FILE has no use"},
		{"bundle without verify", issue("--bundle", bundle), exitUsage, "--bundle has no use without --verify"},
		{"no lifetime", issue("--lifetime", "0s"), exitUsage, "--lifetime must be"},
		{"bad begin", issue("--not-before", "tomorrow"), exitUsage, "--not-before must be a time"},
		{"no issuer key", issue("--issuer-key", file("none.priv")), exitFailed, "--issuer-key: signing key"},
		{"open issuer key", issue("--issuer-key", file("open.priv")), exitFailed, "chmod 600"},
		{"short subject key", issue("--subject-key", file("short.pub")), exitFailed, "--subject-key: public key"},
		{"the issuer's own key", issue("--subject-key", file("root.pub")), exitFailed, "is that of the issuer"},
		{"bad subject", issue("--subject", "a b"), exitFailed, "subject may hold only"},
		{"bad trust domain", issue("--trust-domain", "a b"), exitFailed, "trust domain must be"},
		{"out into no folder", issue("--out", file("none/x")), exitFailed, "--out: "},
		{"chain that is none", issue("--chain", file("leader.cred")), exitFailed, "--chain: "},

		{"verify without a bundle", verify(file("leader.cred")), exitUsage, "missing: --bundle"},
		{"verify nothing", verify("--bundle", bundle), exitUsage, "name the file"},
		{"verify two", verify("--bundle", bundle, "a", "b"), exitUsage, "at most 1"},
		{"verify and issue", verify("--bundle", bundle, "--out", "x", "a"), exitUsage, "--out has no use beside --verify"},
		{"no such bundle", verify("--bundle", file("none"), file("leader.cred")), exitFailed, "trust bundle"},
		{"verify garbage", verify("--bundle", bundle, file("garbage")), exitFailed, "credential_malformed"},
		{"verify with a chain that is none", verify("--bundle", bundle, "--chain", file("garbage"), file("leader.cred")), exitFailed, "--chain: "},

		{"chain without out", []string{"chain", file("leader.cred")}, exitUsage, "--out is missing"},
		{"chain of nothing", []string{"chain", "--out", file("x")}, exitUsage, "at least 1"},
		{"chain of garbage", []string{"chain", "--out", file("x"), file("garbage")}, exitFailed, "credential_malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			runKeys(t, tt.args...).want(t, tt.code, "", tt.text)
		})
	}
	// What cannot be read does not keep the rest from being shown; a bad file in the bundle neither.
	runKeys(t, "show", file("garbage"), file("root.pub")).want(t, exitFailed, "public key", "garbage")
	runKeys(t, "credential", "--verify", "--bundle", dir, file("leader.cred")).want(t, exitOK, "valid", "note: passed over, as peers do")
	runKeys(t).want(t, exitOK, "generate", "")
}

// A name from elsewhere cannot write into the operator's terminal.
func TestKeysShowQuotesNames(t *testing.T) {
	t.Parallel()
	if got := plain("ai:leader"); got != "ai:leader" {
		t.Errorf("got %s, want it as it is", got)
	}
	if got, want := plain("a\x1b[2J\né"), `"a\x1b[2J\n\u00e9"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 s", 90 * time.Second: "90 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min", 3 * time.Hour: "3 h", 50 * time.Hour: "2 d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}
