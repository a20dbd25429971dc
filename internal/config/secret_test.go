package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quorumbox/internal/config"
)

func TestSecretNeverPrints(t *testing.T) {
	t.Parallel()
	const canary = "hunter2-canary"
	secret := config.NewSecret(canary)
	hidden := struct{ inner config.Secret }{secret} // fmt does not ask the methods of an unexported field
	shown := struct{ Key config.Secret }{secret}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T", "%p", "%20s"} {
		for _, value := range []any{secret, &secret, hidden, shown, []config.Secret{secret}, map[string]config.Secret{"k": secret}} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
	}
	out.WriteString(errors.Join(fmt.Errorf("with %v", secret), fmt.Errorf("and %s", shown)).Error())
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).LogAttrs(t.Context(), slog.LevelInfo, "secret",
			slog.Any("secret", secret), slog.Any("shown", shown), slog.Any("hidden", hidden), slog.String("text", secret.String()))
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"secret": secret, "shown": shown, "hidden": hidden}); err != nil {
		t.Fatal(err)
	}
	yaml, err := secret.MarshalYAML()
	fmt.Fprintln(&out, yaml, err)
	text, err := secret.MarshalText()
	fmt.Fprintln(&out, string(text), err)
	if strings.Contains(out.String(), canary) || strings.Contains(out.String(), fmt.Sprintf("%x", canary)) {
		t.Errorf("the secret shows:\n%s", out.String())
	}
	for _, got := range []string{secret.String(), fmt.Sprintf("%#v", secret), string(text), fmt.Sprint(yaml), secret.LogValue().String()} {
		if got != config.Redacted {
			t.Errorf("got %q, want %q", got, config.Redacted)
		}
	}
}

func TestSecretRevealAndEqual(t *testing.T) {
	t.Parallel()
	var zero config.Secret
	a := config.NewSecret("a")
	if zero.Reveal() != "" || !zero.IsZero() || !zero.Equal(config.NewSecret("")) {
		t.Error("the zero secret is not the empty one")
	}
	if a.Reveal() != "a" || a.IsZero() || !a.Equal(config.NewSecret("a")) || a.Equal(config.NewSecret("ab")) || a.Equal(zero) {
		t.Error("a secret is not its text")
	}
}

// Security checklist, private keys and api keys: mode, owner, kind of file, folder.
func TestReadSecretFile(t *testing.T) {
	t.Parallel()
	write := func(text string, mode os.FileMode) func(t *testing.T, dir string) string {
		return func(t *testing.T, dir string) string {
			t.Helper()
			path := filepath.Join(dir, "secret")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	tests := []struct {
		name  string
		setup func(t *testing.T, dir string) string
		want  string // the secret
		err   string // or part of the error
	}{
		{name: "mode 0600", setup: write("s3cr3t", 0o600), want: "s3cr3t"},
		{name: "mode 0400", setup: write("s3cr3t", 0o400), want: "s3cr3t"},
		{name: "line end", setup: write("s3cr3t\n", 0o600), want: "s3cr3t"},
		{name: "line end of Windows", setup: write("s3cr3t\r\n", 0o600), want: "s3cr3t"},
		{name: "blanks are part of it", setup: write(" s3cr3t ", 0o600), want: " s3cr3t "},
		{name: "largest", setup: write(strings.Repeat("s", 64<<10), 0o600), want: strings.Repeat("s", 64<<10)},
		{name: "group may read", setup: write("s3cr3t", 0o640), err: "run chmod 600 "},
		{name: "others may read", setup: write("s3cr3t", 0o604), err: "has mode 0604"},
		{name: "others may write", setup: write("s3cr3t", 0o602), err: "run chmod 600 "},
		{name: "too large", setup: write(strings.Repeat("s", 64<<10+1), 0o600), err: "larger than 65536"},
		{name: "empty", setup: write("", 0o600), err: "is empty"},
		{name: "only a line end", setup: write("\n", 0o600), err: "is empty"},
		{name: "two lines", setup: write("s3cr3t\nX-Header: 1", 0o600), err: "one line"},
		{name: "binary", setup: write("s3cr3t\x00", 0o600), err: "control characters"},
		{name: "absent", setup: func(_ *testing.T, dir string) string { return filepath.Join(dir, "absent") }, err: "no such file"},
		{name: "folder", setup: func(_ *testing.T, dir string) string { return dir }, err: "no regular file"},
		{name: "symbolic link", setup: func(t *testing.T, dir string) string {
			t.Helper()
			link := filepath.Join(dir, "link")
			if err := os.Symlink(write("s3cr3t", 0o600)(t, dir), link); err != nil {
				t.Fatal(err)
			}
			return link
		}, err: "is a symbolic link"},
		{name: "named pipe", setup: func(t *testing.T, dir string) string {
			t.Helper()
			pipe := filepath.Join(dir, "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Skip(err)
			}
			return pipe
		}, err: "no regular file"},
		{name: "folder that others may write", setup: func(t *testing.T, dir string) string {
			t.Helper()
			path := write("s3cr3t", 0o600)(t, dir)
			if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // G302: the case itself
				t.Fatal(err)
			}
			return path
		}, err: "chmod go-w"},
		{name: "sticky folder", setup: func(t *testing.T, dir string) string {
			t.Helper()
			path := write("s3cr3t", 0o600)(t, dir)
			if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
				t.Fatal(err)
			}
			return path
		}, want: "s3cr3t"},
		{name: "another owner", setup: func(t *testing.T, dir string) string {
			t.Helper()
			path := write("s3cr3t", 0o600)(t, dir)
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Skip("only root can give a file away: the owner's rule is checked in TestCheckPrivateOwner")
			}
			return path
		}, err: "belongs to user 12345"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := config.ReadSecretFile(tt.setup(t, t.TempDir()))
			if tt.err == "" {
				if err != nil || got.Reveal() != tt.want {
					t.Errorf("got %.40q, %v, want %.40q", got.Reveal(), err, tt.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}
