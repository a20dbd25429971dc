package jobs_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/jobs"
	"quorumbox/outbox"
)

// taken is a step as the mesh saw it: its verdict, and its batch as it was recorded.
type taken struct {
	step

	entries []outbox.EntryID
	verdict outbox.Verdict
	acked   []string
	reason  string
}

// walk takes all steps, each from a mesh in which nothing is left to do, and checks what is true of all of them: the state of the peers in
// the end and the headers of each request. before sets the faults; decided checks the verdict, and after what there is in the end.
func walk(t *testing.T, s setting, before func(t *testing.T, m *mesh), decided, after func(t *testing.T, m *mesh, got taken)) {
	t.Helper()
	m := startMesh(t, s)
	for _, st := range steps() {
		ok := t.Run(st.name, func(t *testing.T) {
			m := m.in(t)
			for _, n := range m.nodes {
				n.forget()
			}
			before(t, m)
			got := taken{step: st}
			m.inTx(func(tx pgx.Tx) (err error) {
				got.entries, err = st.write(t.Context(), tx)
				return err
			})
			got.verdict = m.await(got.entries...)
			err := m.pool.QueryRow(t.Context(), `select acked, reason from batches where entries && $1`, got.entries).Scan(&got.acked, &got.reason)
			if err != nil {
				t.Fatal(err)
			}
			decided(t, m, got)
			m.settled()
			after(t, m, got)
			for id, n := range m.nodes {
				if diff := cmp.Diff(st.state, n.holds(t)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", id, diff)
				}
				wantHeaders(t, n.got())
			}
		})
		if !ok {
			return // the next one starts from what this one should have come to
		}
	}
}

// wantHeaders checks those that every push of a lane has. That the signature is right, the receiver has judged: it refuses others.
func wantHeaders(t *testing.T, requests []request) {
	t.Helper()
	nonces := map[string]bool{}
	for _, r := range requests {
		for name, want := range map[string]string{"Content-Type": "application/json", "X-Peer-Id": leader, "X-Api-Key": apiKey, "X-Catchup": ""} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s: got %q, want %q", r, name, got, want)
			}
		}
		if r.header.Get("X-Memory-Sig") == "" {
			t.Errorf("%s: it has no signature", r)
		}
		nonce := r.header.Get("X-Memory-Nonce")
		if nonce == "" || nonces[nonce] {
			t.Errorf("%s: nonce %q is missing or came twice", r, nonce)
		}
		nonces[nonce] = true
	}
}

// wantRetried checks that the second request is the retry of the first: the same bytes under the same key, later by the pause.
func wantRetried(t *testing.T, requests []request) {
	t.Helper()
	if len(requests) < 2 {
		t.Fatalf("got %q, want a request and its retry", shown(requests))
	}
	first, again := requests[0], requests[1]
	if !bytes.Equal(first.body, again.body) || first.header.Get("Idempotency-Key") != again.header.Get("Idempotency-Key") {
		t.Errorf("got %s and %s, want the same twice", first, again)
	}
	if pause := again.at.Sub(first.at); pause < 250*time.Millisecond {
		t.Errorf("got a pause of %s, want 250ms or more", pause)
	}
}

func wantRequests(t *testing.T, n *node, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, shown(n.got())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func wantBatch(t *testing.T, got taken, acked []string, reason outbox.Reason) {
	t.Helper()
	verdict := outbox.Verdict{Met: len(got.entries), NotMet: map[outbox.Reason]int{}}
	if reason != "" {
		verdict = outbox.Verdict{NotMet: map[outbox.Reason]int{reason: len(got.entries)}}
	}
	if diff := cmp.Diff(verdict, got.verdict); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(acked, got.acked); diff != "" || got.reason != string(reason) {
		t.Errorf("batch: got reason %q, want %q; acknowledged by (-want +got):\n%s", got.reason, reason, diff)
	}
}

func nothing(*testing.T, *mesh, taken) {}

// patient waits for the other peer's answer when one has made the quorum impossible, so that it counts.
func patient(c *jobs.Config) { c.Grace = time.Second }
