package peer_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"quorumbox/internal/peer"
)

// The vectors of the protocol digest: node key from seed 00..1f.
const (
	vectorBody  = `{"dry_run":false,"memories":[],"sender_agent_id":"ai:leader"}`
	vectorNonce = "00000000-0000-4000-8000-000000000001"
)

func TestSignVectors(t *testing.T) {
	t.Parallel()
	key := nodeKey()
	public, _ := key.Public().(ed25519.PublicKey)
	if got, want := hex.EncodeToString(public), "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"; got != want {
		t.Fatalf("public key: got %s, want %s", got, want)
	}
	if got := string(peer.Message{}.Encode("ai:leader")); got != vectorBody {
		t.Fatalf("body: got %s, want %s", got, vectorBody)
	}
	tests := []struct {
		name, got, want string
	}{
		{
			"body and nonce", peer.Sign(key, []byte(vectorBody), vectorNonce),
			"ed25519=zGXq0cYSfkC5CYOhflTiEuBPvt5s7yzNjBCjgIZzVvCyX3bJUIEUg62199YwwU/nrwzVRh/VCBNF/r/ZPrUBBg==",
		},
		{
			"body only (legacy)", "ed25519=" + base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(vectorBody))),
			"ed25519=WGTl3xsGHXiMBPK9ZnJIh3WN8ET2vGnaaKUBgwP942P+0RmsQOngY034z+/WB6k0eR10ODk/Nr+h/YATZpZ4BQ==",
		},
		{
			"three lines of a GET", peer.Sign(key, []byte("GET\n/api/v1/sync/since\nlimit=500&peer=ai%3Aleader"), vectorNonce),
			"ed25519=njnqmSq2tcHn5aa/m1jiHTYRvO63+bAquSLJFB982tBWau5eILxCvr4bZ3Ee/3P4Pr7EB+IaEfeRtHINOlmgAQ==",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.got != test.want {
				t.Errorf("got %s, want %s", test.got, test.want)
			}
		})
	}
}

// verify checks a request's signature as the receiver does: over the raw bytes, a zero byte and the nonce.
func verify(tb testing.TB, request received) {
	tb.Helper()
	text, ok := strings.CutPrefix(request.header.Get("X-Memory-Sig"), "ed25519=")
	if !ok {
		tb.Fatalf("x-memory-sig: got %q, want ed25519=...", request.header.Get("X-Memory-Sig"))
	}
	signature, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		tb.Fatalf("signature: %v", err)
	}
	public, _ := nodeKey().Public().(ed25519.PublicKey)
	input := append(append([]byte{}, request.body...), 0)
	input = append(input, request.header.Get("X-Memory-Nonce")...)
	if !ed25519.Verify(public, input, signature) {
		tb.Errorf("the signature does not verify over the received bytes")
	}
	input[0] ^= 1
	if ed25519.Verify(public, input, signature) {
		tb.Errorf("the signature verifies over tampered bytes")
	}
}
