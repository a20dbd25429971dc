package peer_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

// Checklist row 4: the retry is the same operation, and says so.
func TestRetryKeepsItsKey(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]peer.Request{
		"an operation":    {IdempotencyKey: "m-1", ExpectIDs: []string{"m-1"}},
		"a bulk catch-up": {Catchup: peer.CatchupBulk},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				_, _ = io.WriteString(w, okAnswer)
			})
			request.Body = body()
			if err := newClient(t, rec.URL, signed).Push(testContext(t), request); err != nil {
				t.Fatalf("Push: %v", err)
			}
			got := rec.all()
			if len(got) != 2 {
				t.Fatalf("requests: got %d, want 2", len(got))
			}
			for _, name := range []string{"Idempotency-Key", "X-Catchup", "X-Peer-Id", "Content-Type"} {
				if diff := cmp.Diff(got[0].header[name], got[1].header[name]); diff != "" {
					t.Errorf("%s (-first +retry):\n%s", name, diff)
				}
			}
			if key := got[0].header.Get("Idempotency-Key"); key != request.IdempotencyKey {
				t.Errorf("key: got %q, want %q", key, request.IdempotencyKey)
			}
		})
	}
}

// Checklist rows 24 and 31: the pause is the reference's, and leaves most of the ack timeout of 2 s to both attempts.
func TestRetryPauseIsTheReferences(t *testing.T) {
	t.Parallel()
	if got, want := peer.RetryPause, 250*time.Millisecond; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Checklist row 9: x-peer-id is the sender of the body. There is no sender without a name to leave it out for: see [TestNewRefuses].
func TestPeerIDIsTheSenderOfTheBody(t *testing.T) {
	t.Parallel()
	for _, sender := range []string{"ai:leader", "host:writer-1"} {
		rec := newRecorder(t, answerOK)
		client := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.SenderID = sender })
		if err := client.Post(testContext(t), peer.Request{Body: peer.Message{}.Encode(sender)}); err != nil {
			t.Fatalf("Post: %v", err)
		}
		got := rec.all()[0]
		var message struct {
			Sender string `json:"sender_agent_id"`
		}
		if err := json.Unmarshal(got.body, &message); err != nil {
			t.Fatal(err)
		}
		if header := got.header["X-Peer-Id"]; !cmp.Equal(header, []string{message.Sender}) || message.Sender != sender {
			t.Errorf("got header %q and sender %q, want %q twice", header, message.Sender, sender)
		}
	}
}

// Checklist row 23: a peer of the first version looks at no header, and would refuse a body with fields that it does not know. It takes a
// store with everything that later versions put around it.
func TestPeerThatKnowsNoneOfTheHeaders(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, nil)
	rec.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message struct {
			Sender   string            `json:"sender_agent_id"`
			Memories []json.RawMessage `json:"memories"`
			DryRun   bool              `json:"dry_run"`
		}
		text, err := io.ReadAll(r.Body)
		if err == nil {
			decoder := json.NewDecoder(bytes.NewReader(text))
			decoder.DisallowUnknownFields()
			err = decoder.Decode(&message)
		}
		if err != nil || message.Sender != senderID || len(message.Memories) != 1 || message.DryRun {
			t.Errorf("got %s (%v)", text, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, `{"applied":1,"noop":0,"skipped":0}`)
	})
	client := newClient(t, rec.URL, signed, func(cfg *peer.Config) {
		cfg.APIKey = secret.New(canary)
		cfg.Credential = func(ed25519.PublicKey) (string, string) { return "v1=bGVhZg==", "v1=Y2hhaW4=" }
	})
	content := peer.Message{Memories: []json.RawMessage{[]byte(`{"id":"m-1"}`)}}.Encode(senderID)
	request := peer.Request{Body: content, IdempotencyKey: "m-1", ExpectIDs: []string{"m-1"}}
	report, err := client.PushReport(testContext(t), request)
	if err != nil || report != (peer.Report{Attempts: 1}) {
		t.Errorf("got %+v, %v, want one acknowledged attempt", report, err)
	}
}

// Checklist row 88, certificate pins, is not built: a certificate is judged by the peer's own authorities, and a pin would be a list of one
// certificate. What a peer's list leaves out does not get through, although another peer's has it.
func TestAuthoritiesArePerPeer(t *testing.T) {
	t.Parallel()
	rec, pool := newTLSRecorder(t, &tls.Config{})
	trusting := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.RootCAs = pool })
	if err := trusting.Post(testContext(t), peer.Request{Body: body()}); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	other := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.ID = "peer-b" })
	checkClass(t, other.Post(testContext(t), peer.Request{Body: body()}), peer.ClassTLS, peer.Fail)
}
