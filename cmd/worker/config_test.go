package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigCheckCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("key", strings.Repeat("k", 32), 0o600)
	open := write("open", "s3cr3t", 0o644)
	short := write("short", "s3cr3t", 0o600)
	const peerLines = `
sender_id: host:test
peers:
  - {id: peer-a, url: "https://peer-a.example:9077"}
  - {id: peer-b, url: "https://peer-b.example:9077"}
`
	runWorker(t, "postgres://u@127.0.0.1/db", peerLines+"signing_key_file: "+key, "", "config", "check").
		want(t, exitOK, "the settings are good: 2 peers, quorum 2 of 3", "")
	runWorker(t, "", "sender_id: host:test", "", "config", "check").want(t, exitOK, "note: no database is set", "")
	runWorker(t, "", "sender_id: host:test", "", "config", "check").want(t, exitOK, "note: there are no peers", "")

	// All problems of the values at once.
	o := runWorker(t, "", "sender_id: system\nretry: {workers: 0}\nadmin: {listen: 0.0.0.0:80}\ncolour: red", "", "config", "check")
	for _, want := range []string{"sender_id", "retry.workers", "admin.listen", "colour"} {
		o.want(t, exitFailed, "", want)
	}
	// And all of the files that they name.
	o = runWorker(t, "", peerLines+"signing_key_file: "+short+"\napi_key_file: "+open+"\ndatabase: {url_file: "+filepath.Join(dir, "none")+"}", "", "config", "check")
	for _, want := range []string{"signing_key_file", "\napi_key_file: ", "no such file"} {
		o.want(t, exitFailed, "", want)
	}
	if strings.Contains(o.stderr, "s3cr3t") {
		t.Errorf("the errors show a secret: %s", o.stderr)
	}
}

// Whatever is wrong is told at once: unknown keys and variables with a hint, values, rules between them, and files that are missing, open to others, or hold
// something else.
func TestConfigCheckTellsEverythingAtOnce(t *testing.T) { //nolint:paralleltest // it sets the environment
	t.Setenv("QUORUMBOX_RETRY__WORKER", "4")
	dir := t.TempDir()
	for name, content := range map[string]string{"short": "s3cr3t", "open": "s3cr3t", "url": "postgres://u:s3cr3t@host:port/db", "pem": "hello"} {
		writeFile(t, filepath.Join(dir, name), []byte(content))
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o644); err != nil { //nolint:gosec // G302: the case itself
		t.Fatal(err)
	}
	o := runWorker(t, "", strings.ReplaceAll(`
sender_id: host:test
colour: red
quorum: {writes: 9, ack_time: 2s}
retry: {initial: 1m, max: 1s}
jobs: {timeout: 1s}
database: {url_file: DIR/url}
signing_key_file: DIR/short
api_key_file: DIR/none
peers:
  - {id: a, url: "https://a.example", ca_file: DIR/pem, colour: red}
  - {id: a, url: "https://b.example", api_key_file: DIR/open, client_cert_file: DIR/pem}
`, "DIR", dir), "", "config", "check")
	for _, want := range []string{
		"colour", "ack_time", `did you mean`, "QUORUMBOX_RETRY__WORKER", "quorum.writes is 9", "retry.max is 1s", "quorum.ack_timeout is 2s: want less than jobs.timeout",
		"peers[1].id is", "peers[1] has one of client_cert_file and client_key_file",
		"parse the database URL", "has 6 bytes: it must hold the raw seed", "\napi_key_file: look at secret file", "peer a: api_key_file: ", "has mode 0644", "holds no certificate in PEM",
	} {
		o.want(t, exitFailed, "", want)
	}
	if strings.Contains(o.stderr, "s3cr3t") {
		t.Errorf("the errors show a secret: %s", o.stderr)
	}
	t.Log(o.stderr)
}

// What keeps no worker from starting is a warning: peers that the outbound rules refuse, a credential that cannot be used.
func TestConfigCheckWarns(t *testing.T) {
	t.Parallel()
	o := runWorker(t, "postgres://u@127.0.0.1/db", `
sender_id: host:test
credential_file: /nowhere/credential
peers:
  - {id: peer-a, url: "https://peer-a.example:9077"}
  - {id: peer-b, url: "http://[2001:db8::1]:9077"}
quorum: {namespaces: [{glob: "prod/**", writes: all}]}
outbound: {rules: [{action: deny, host: "*", scheme: http, reason: no plain HTTP}]}
`, "", "config", "check")
	o.want(t, exitOK, "warning: peer peer-b gets nothing: governance refused outbound to 2001:db8::1: no plain HTTP\n", "")
	o.want(t, exitOK, "warning: credential /nowhere/credential is left out", "")
	o.want(t, exitOK, "warning: credential_file is set and signing_key_file is not", "")
	o.want(t, exitOK, "the settings are good: 2 peers, quorum 2 of 3, other rules for namespaces: 1", "")
	if strings.Contains(o.stdout, "peer-a") {
		t.Errorf("a peer that may be sent to is warned about: %s", o.stdout)
	}
}

// Checklist row 84: certificate files that are missing or bad keep the program from starting, all named at once.
func TestConfigCheckCertificateFiles(t *testing.T) {
	t.Parallel()
	o := runWorker(t, "", `
sender_id: host:test
peers:
  - {id: peer-a, url: "https://a.example", ca_file: /nowhere/ca, client_cert_file: /nowhere/cert, client_key_file: /nowhere/key}
  - {id: peer-b, url: "https://b.example", ca_file: /dev/null}
`, "", "config", "check")
	for _, want := range []string{"peer peer-a: ca_file: open /nowhere/ca", "peer peer-a: client_cert_file: open", "peer peer-b: ca_file: /dev/null holds no certificate"} {
		o.want(t, exitFailed, "", want)
	}
}

func TestConfigPrintCommand(t *testing.T) {
	t.Parallel()
	o := runWorker(t, "postgres://u:s3cr3t@127.0.0.1/db", "sender_id: host:test", "", "config", "print")
	o.want(t, exitOK, `sender_id: "host:test"`, "")
	o.want(t, exitOK, "ack_timeout: 2s", "")
	if strings.Contains(o.stdout, "s3cr3t") || !strings.Contains(o.stdout, "[redacted]") {
		t.Errorf("the secret is not redacted: %s", o.stdout)
	}
	runWorker(t, "", "retry: {workers: 0}", "", "config", "print").want(t, exitFailed, "", "retry.workers")
}
