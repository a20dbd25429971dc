package integration

import (
	"os"
	"slices"
	"testing"
	"time"
)

// The names in the credentials of these tests.
const (
	trustDomain    = "fleet.example"
	rootID         = "root"
	intermediateID = "region-ca"
)

// Three receivers that differ in strictness get entries of all kinds from one sender: one checks no signature, one asks for signature, nonce
// and enrolment, and one, which asks for the same, knows the sender by its credential alone. The credential is rotated while writers write. While it
// is expired or missing, that peer refuses what it gets, and only that one; a new credential heals it without a restart.
func TestReceiversOfDifferentStrictness(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{ackTimeout: time.Second, admin: freeAddr(t), prepare: differentStrictness})
	lax, strict, byCredential := f.peers[0], f.peers[1], f.peers[2]
	w := f.worker(t, "")
	o := &operations{fleet: f}

	l := startLoad(t, 4, o.step)
	l.reach(t, 100)
	f.credential(t)
	l.reach(t, 100)
	o.reachAllKinds(t)
	l.stop(t)
	f.convergeAll(t, changes)
	if n := f.attempts(t, byCredential.id)["unauthorized"]; n > 0 {
		t.Errorf("the peer refused %d pushes although there was a credential all the time", n)
	}

	for i, lose := range []func(){
		func() { f.credential(t, "--not-before", "2026-01-01T00:00:00Z", "--lifetime", "1h") },
		func() {
			if err := os.Remove(f.path("leader.cred")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		o.round++
		before := f.attempts(t, byCredential.id)["unauthorized"]
		lose()
		l := startLoad(t, 4, o.step)
		l.reach(t, 60)
		l.stop(t)
		until(t, "the peer that lacks a credential is shown with the class", func() []string {
			shown, err := f.strings(t.Context(), `
				select p.id || ': ' || p.last_error_class from peers p
				where p.last_error_class = 'unauthorized' and exists (select from lagging l where l.peer = p.id and l.last_class = p.last_error_class)`)
			return slices.Concat(problem(err), holds(slices.Equal(shown, []string{byCredential.id + ": unauthorized"}), "shown are "+list(shown)))
		})
		if f.attempts(t, byCredential.id)["unauthorized"] == before {
			t.Errorf("C10: loss %d: no push was refused", i)
		}
		f.credential(t)
		f.convergeAll(t, changes)
	}
	if w.hasEnded() || len(f.workers) != 1 {
		t.Error("the worker did not live through it")
	}
	for _, p := range []*member{lax, strict} {
		if n := f.attempts(t, p.id)["unauthorized"]; n > 0 {
			t.Errorf("%s refused %d pushes", p.id, n)
		}
	}
	o.wantKinds(t)
	wantCredentials(t, f.peers)
}

// differentStrictness arranges the three receivers, and the workers' credential with its chain.
func differentStrictness(t *testing.T, f *fleet) {
	t.Helper()
	for _, id := range []string{rootID, intermediateID} {
		f.run(t, "keys", "generate", "--agent-id", id, "--dir", f.path("authority"))
	}
	root, err := os.ReadFile(f.path("authority/" + rootID + ".pub"))
	if err != nil {
		t.Fatal(err)
	}
	f.file(t, "roots/"+rootID+".pub", root)
	f.run(t, "keys", "credential", "--issuer-key", f.path("authority/"+rootID+".priv"), "--issuer-id", rootID, "--subject", intermediateID,
		"--subject-key", f.path("authority/"+intermediateID+".pub"), "--trust-domain", trustDomain, "--lifetime", "24h", "--out", f.path("region.cred"))
	f.run(t, "keys", "chain", "--out", f.path("region.chain"), f.path("region.cred"))
	f.credential(t)
	f.settings = "credential_file: " + f.path("leader.cred") + "\ncredential_chain_file: " + f.path("region.chain")

	key := []string{"--api-key-file", f.path("api-key")}
	f.peers[0].flags = slices.Concat(key, []string{"--no-require-sig"})
	f.peers[1].flags = slices.Concat(key, []string{"--require-enrollment", "--keys", f.path("keys")})
	f.peers[2].flags = slices.Concat(key, []string{"--require-enrollment", "--trust-bundle", f.path("roots"), "--trust-domain", trustDomain})
}

// credential issues a credential for the sender's key and puts it into place by renaming. Of a flag that is given twice the last one counts.
func (f *fleet) credential(t *testing.T, more ...string) {
	t.Helper()
	f.run(t, slices.Concat([]string{
		"keys", "credential", "--issuer-key", f.path("authority/" + intermediateID + ".priv"), "--issuer-id", intermediateID,
		"--subject", senderID, "--subject-key", f.path("keys/" + senderID + ".pub"), "--trust-domain", trustDomain, "--out", f.path("leader.cred"),
	}, more)...)
}

// run runs a command of the program to its end.
func (f *fleet) run(t *testing.T, args ...string) {
	t.Helper()
	p := launch(t, "commands", f.logs, nil, args...)
	p.wait(t, settleTime)
	p.wantExit(t, 0)
}

// wantCredentials checks what each of the three peers knew the sender by, in everything that it applied (C10).
func wantCredentials(t *testing.T, peers []*member) {
	t.Helper()
	const none, ok, unknown = "", "ok", "credential_unknown_issuer"
	for i, want := range [][]string{{none}, {unknown, none}, {ok}} {
		log, err := peers[i].log(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, a := range log {
			seen[a.Credential]++
			if a.Nonce == "" || a.PeerID != senderID {
				t.Fatalf("%s: push %d came with the nonce %q from %q", peers[i].id, a.Push, a.Nonce, a.PeerID)
			}
		}
		for credential := range seen {
			if !slices.Contains(want, credential) {
				t.Errorf("%s applied entries whose credential was %q, want %q", peers[i].id, credential, want)
			}
		}
		if len(seen) == 0 {
			t.Errorf("C10: %s applied nothing", peers[i].id)
		}
	}
}

// A sender without a key is taken by a receiver that has enrolled nobody, and refused by one that asks for enrolment. When the worker is started
// again with its key, and the first receiver has enrolled it by then, both get everything.
func TestUnsignedSender(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{
		peers: 2, writes: "2", unsigned: true,
		prepare: func(_ *testing.T, f *fleet) {
			f.peers[0].flags = []string{"--api-key-file", f.path("api-key"), "--keys", f.path("enrolled")}
			f.file(t, "enrolled/other.pub", make([]byte, 32))
		},
	})
	o := &operations{fleet: f}
	w := f.worker(t, "")
	l := startLoad(t, 2, o.step)
	l.reach(t, 60)
	l.stop(t)
	until(t, "only the strict one lags", func() []string {
		lagging, err := f.strings(t.Context(), `select distinct peer || ': ' || last_class from lagging`)
		return slices.Concat(problem(err), holds(slices.Equal(lagging, []string{f.peers[1].id + ": unauthorized"}), "lagging are "+list(lagging)))
	})
	if n := f.count(t, `select count(*) from batches where verdict = 'not_met'`); n > 0 {
		t.Errorf("%d batches are not met, although the other peer takes everything", n)
	}
	w.terminate(t)

	key, err := os.ReadFile(f.path("keys/" + senderID + ".pub"))
	if err != nil {
		t.Fatal(err)
	}
	f.file(t, "enrolled/"+senderID+".pub", key)
	f.unsigned = false
	f.writeConfig(t)
	f.worker(t, "")
	f.convergeAll(t, changes)
}
