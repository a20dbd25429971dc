package peer_test

import (
	"crypto/ed25519"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"quorumbox/internal/peer"
)

// The headers of the credential over what is held: checklist rows 10 to 12.
func TestCredentialHeaders(t *testing.T) {
	t.Parallel()
	long := "v1=" + strings.Repeat("A", 8<<10)
	for _, test := range []struct {
		name, leaf, chain   string
		wantLeaf, wantChain string // "" means absent
	}{
		{name: "nothing held"},
		{name: "a leaf signed by a root", leaf: "v1=bGVhZg==", wantLeaf: "v1=bGVhZg=="},
		{name: "a leaf and intermediates", leaf: "v1=bGVhZg==", chain: "v1=Y2hhaW4=", wantLeaf: "v1=bGVhZg==", wantChain: "v1=Y2hhaW4="},
		{name: "intermediates without a leaf", chain: "v1=Y2hhaW4="},
		{name: "a line feed in the leaf", leaf: "v1=bGVhZg==\r\nX-Evil: 1", chain: "v1=Y2hhaW4="},
		{name: "a blank behind the leaf", leaf: "v1=bGVhZg== "},
		{name: "a line feed in the chain", leaf: "v1=bGVhZg==", chain: "v1=Y2hh\naW4=", wantLeaf: "v1=bGVhZg=="},
		{name: "outside of ASCII", leaf: "v1=é"},
		{name: "too long a leaf", leaf: long},
		{name: "too long a chain", leaf: "v1=bGVhZg==", chain: long, wantLeaf: "v1=bGVhZg=="},
	} {
		for name, catchup := range map[string]peer.Catchup{"push": peer.CatchupNone, "bulk": peer.CatchupBulk} {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				rec := newRecorder(t, answerOK)
				client := newClient(t, rec.URL, signed, func(cfg *peer.Config) {
					cfg.Credential = func(ed25519.PublicKey) (string, string) { return test.leaf, test.chain }
				})
				if err := client.Post(testContext(t), peer.Request{Body: body(), Catchup: catchup}); err != nil {
					t.Fatalf("Post: %v", err)
				}
				got := rec.all()[0]
				verify(t, got)
				for name, want := range map[string]string{"X-Memory-Cred": test.wantLeaf, "X-Memory-Cred-Chain": test.wantChain, "X-Evil": ""} {
					if _, present := got.header[name]; present != (want != "") || got.header.Get(name) != want {
						t.Errorf("%s: got %.80q, want %q", name, got.header[name], want)
					}
				}
			})
		}
	}
}

// Each attempt takes the credential of its moment, the retry of a push too: checklist row 13.
func TestCredentialRotates(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, okAnswer)
	})
	var taken atomic.Int64
	client := newClient(t, rec.URL, signed, func(cfg *peer.Config) {
		cfg.Credential = func(ed25519.PublicKey) (string, string) { return "v1=" + strconv.FormatInt(taken.Add(1), 10), "" }
	})
	for range 2 {
		if err := client.Push(testContext(t), peer.Request{Body: body()}); err != nil {
			t.Fatalf("Push: %v", err)
		}
	}
	for i, request := range rec.all() {
		if got, want := request.header.Get("X-Memory-Cred"), "v1="+strconv.Itoa(i+1); got != want {
			t.Errorf("request %d: got %q, want %q", i, got, want)
		}
	}
	if got := len(rec.all()); got != 3 {
		t.Errorf("requests: got %d, want 3", got)
	}
}
