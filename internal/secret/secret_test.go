package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"quorumbox/internal/secret"
)

func TestSecretNeverPrints(t *testing.T) {
	t.Parallel()
	const canary = "hunter2-canary"
	text := secret.New(canary)
	hidden := struct{ inner secret.Secret }{text} // fmt does not ask the methods of an unexported field
	shown := struct{ Key secret.Secret }{text}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T", "%p", "%20s"} {
		for _, value := range []any{text, &text, hidden, shown, &shown, []secret.Secret{text}, map[string]secret.Secret{"k": text}} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
	}
	out.WriteString(errors.Join(fmt.Errorf("with %v", text), fmt.Errorf("and %s", shown)).Error())
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).LogAttrs(t.Context(), slog.LevelInfo, "secret",
			slog.Any("secret", text), slog.Any("shown", shown), slog.Any("hidden", hidden), slog.String("text", text.String()))
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"secret": text, "shown": shown, "hidden": hidden}); err != nil {
		t.Fatal(err)
	}
	yaml, err := text.MarshalYAML()
	fmt.Fprintln(&out, yaml, err)
	plain, err := text.MarshalText()
	fmt.Fprintln(&out, string(plain), err)
	if strings.Contains(out.String(), canary) || strings.Contains(out.String(), fmt.Sprintf("%x", canary)) {
		t.Errorf("the secret shows:\n%s", out.String())
	}
	for _, got := range []string{text.String(), fmt.Sprintf("%#v", text), fmt.Sprintf("%x", text), string(plain), fmt.Sprint(yaml), text.LogValue().String()} {
		if got != secret.Redacted {
			t.Errorf("got %q, want %q", got, secret.Redacted)
		}
	}
}

func TestSecretRevealAndEqual(t *testing.T) {
	t.Parallel()
	var zero secret.Secret
	a := secret.New("a")
	if zero.Reveal() != "" || !zero.IsZero() || !secret.New("").IsZero() || !zero.Equal(secret.New("")) {
		t.Error("the zero secret is not the empty one")
	}
	if a.Reveal() != "a" || a.IsZero() || !a.Equal(secret.New("a")) || a.Equal(secret.New("ab")) || a.Equal(zero) {
		t.Error("a secret is not its text")
	}
}
