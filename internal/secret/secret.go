// Package secret holds texts that must not be shown, and reads them from files that nobody else can read or replace.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a secret prints as.
const Redacted = "[redacted]"

// Secret is text that must not be shown. It prints as [Redacted] through fmt with every verb, slog, JSON, YAML and any
// other encoder of text; only [Secret.Reveal] gives it away. The zero value is the empty secret. Two Secrets are compared
// with [Secret.Equal], never with ==.
type Secret struct {
	// A pointer, because fmt prints the fields of a Secret in an unexported field of a foreign struct without asking
	// its methods; of a pointer it prints the address.
	value *string
}

// New returns value as a secret.
func New(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: &value}
}

// Reveal returns the text. Call it where the secret is used, not where it is passed on.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal reports whether both are the same text, in a time that does not depend on where they differ.
func (s Secret) Equal(other Secret) bool {
	a, b := sha256.Sum256([]byte(s.Reveal())), sha256.Sum256([]byte(other.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String returns [Redacted].
func (Secret) String() string { return Redacted }

// GoString returns [Redacted].
func (Secret) GoString() string { return Redacted }

// Format writes [Redacted] whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue returns [Redacted].
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns [Redacted].
func (Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON returns [Redacted] as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalYAML returns [Redacted].
func (Secret) MarshalYAML() (any, error) { return Redacted, nil }
