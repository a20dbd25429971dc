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
	"quorumbox/internal/secret"
)

const canary = "CANARY-7f3a91"

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	key := secret.New(canary)
	type holder struct {
		Public secret.Secret
		hidden secret.Secret
	}
	h := holder{Public: key, hidden: key}
	cfg := peer.Config{ID: "a", URL: "http://127.0.0.1:1", SenderID: senderID, APIKey: key, SigningKey: nodeKey()}
	client := newClient(t, "http://127.0.0.1:1", func(cfg *peer.Config) { cfg.APIKey = key; cfg.SigningKey = nodeKey() })

	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(handler).InfoContext(t.Context(), "x",
			slog.Any("secret", key), slog.Any("holder", h), slog.Any("config", cfg), slog.Any("client", client))
	}
	texts := map[string]string{"slog": log.String()}
	// Not %p: fmt asks no method for it, and it is of no use for a struct.
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		for name, value := range map[string]any{
			"secret": key, "pointer": &key, "holder": h, "holder pointer": &h, "slice": []secret.Secret{key},
			"map": map[string]secret.Secret{"k": key}, "config": cfg, "config pointer": &cfg, "client": client,
		} {
			texts[name+" "+verb] = fmt.Sprintf(verb, value)
		}
	}
	for name, value := range map[string]any{"secret": key, "holder": h, "map": map[string]secret.Secret{"k": key}, "config": cfg, "client": client} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatalf("json of %s: %v", name, err)
		}
		texts["json "+name] = string(text)
	}
	text, err := key.MarshalText()
	texts["text"] = string(text)
	texts["error"] = errors.Join(err, fmt.Errorf("with %v", key)).Error()

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
