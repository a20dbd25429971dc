package peer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"quorumbox/internal/peer"
)

const canary = "CANARY-7f3a91"

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	secret := peer.NewSecret(canary)
	type holder struct {
		Public peer.Secret
		hidden peer.Secret
	}
	h := holder{Public: secret, hidden: secret}
	cfg := peer.Config{ID: "a", URL: "http://127.0.0.1:1", SenderID: senderID, APIKey: secret, SigningKey: nodeKey()}
	client := newClient(t, "http://127.0.0.1:1", func(cfg *peer.Config) { cfg.APIKey = secret; cfg.SigningKey = nodeKey() })

	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(handler).InfoContext(t.Context(), "x",
			slog.Any("secret", secret), slog.Any("holder", h), slog.Any("config", cfg), slog.Any("client", client))
	}
	texts := map[string]string{"slog": log.String()}
	// Not %p: fmt asks no method for it, and it is of no use for a struct.
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		for name, value := range map[string]any{
			"secret": secret, "pointer": &secret, "holder": h, "holder pointer": &h, "slice": []peer.Secret{secret},
			"map": map[string]peer.Secret{"k": secret}, "config": cfg, "config pointer": &cfg, "client": client,
		} {
			texts[name+" "+verb] = fmt.Sprintf(verb, value)
		}
	}
	for name, value := range map[string]any{"secret": secret, "holder": h, "map": map[string]peer.Secret{"k": secret}, "config": cfg, "client": client} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatalf("json of %s: %v", name, err)
		}
		texts["json "+name] = string(text)
	}
	text, err := secret.MarshalText()
	texts["text"] = string(text)
	texts["error"] = errors.Join(err, fmt.Errorf("with %v", secret)).Error()

	seed := fmt.Sprintf("%x", []byte(nodeKey()[:8]))
	decimals := "0 1 2 3 4 5 6 7"
	for name, text := range texts {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("%s holds the secret: %s", name, text)
		}
		if strings.Contains(text, seed) || strings.Contains(text, decimals) {
			t.Errorf("%s holds the signing key: %s", name, text)
		}
	}
	for _, name := range []string{"secret %v", "secret %#v", "secret %x", "text"} {
		if texts[name] != "[redacted]" {
			t.Errorf("%s: got %q, want [redacted]", name, texts[name])
		}
	}
	if got := h.hidden.Reveal(); got != canary {
		t.Errorf("Reveal: got %q, want %q", got, canary)
	}
}

func TestSecretZero(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]peer.Secret{"zero": {}, "empty": peer.NewSecret("")} {
		if !secret.IsZero() || secret.Reveal() != "" {
			t.Errorf("%s: got %q, want none", name, secret.Reveal())
		}
	}
	if peer.NewSecret("x").IsZero() {
		t.Error("a secret is zero")
	}
}
