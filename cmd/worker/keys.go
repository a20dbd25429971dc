package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
)

func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make signing keys and credentials, and show what is in such files",
		Long: `Make signing keys and credentials, and show what is in such files.

A peer believes a push that is signed by a key it knows: either it has enrolled the
sender's public key, or the sender shows a credential that an authority the peer knows
has signed. docs/identity.md has the steps. No secret is ever printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysGenerateCommand(), newKeysShowCommand(), newKeysCredentialCommand(), newKeysChainCommand())
	return cmd
}

func newKeysGenerateCommand() *cobra.Command {
	var agentID, dir string
	cmd := &cobra.Command{
		Use:   "generate --agent-id ID",
		Short: "Make a key for an agent id: ID.priv signs, ID.pub is for the peers",
		Long: `Make an Ed25519 key and write it as ai-memory does: ID.priv, the raw 32-byte seed with
mode 0600, and ID.pub, the raw 32-byte public key. Files that exist are never written over.`,
		Example: `  worker keys generate --agent-id ai:leader
  worker keys generate --agent-id ai:leader --dir /etc/quorumbox/keys`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if agentID == "" {
				return &usageError{errors.New("--agent-id is missing"), cmd.CommandPath()}
			}
			if dir == "" {
				var err error
				if dir, err = identity.KeyDir(); err != nil {
					return err
				}
			}
			pair, err := identity.GenerateKeys(dir, agentID)
			if err != nil {
				return err
			}
			table := newFields(cmd.OutOrStdout())
			table.add("agent id", agentID)
			table.add("private key", pair.PrivatePath+" (signing_key_file; keep it to the worker)")
			table.add("public key", pair.PublicPath+" (to be enrolled at the peers)")
			table.addKey(pair.Public)
			return table.Flush()
		},
	}
	set := cmd.Flags()
	set.StringVar(&agentID, "agent-id", "", "id that peers see as the sender (required)")
	set.StringVar(&dir, "dir", "", "folder of the files (default $"+identity.KeyDirEnv+", else ~/.config/ai-memory/keys)")
	return cmd
}

func newKeysShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE...",
		Short: "Say what is in key, credential and chain files; signatures are not checked",
		Example: `  worker keys show ~/.config/ai-memory/keys/*
  worker keys show /run/credential`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			var problems []error
			now := time.Now()
			for _, file := range files {
				table := newFields(cmd.OutOrStdout())
				table.add("file", file)
				if err := describe(table, file, now); err != nil {
					problems = append(problems, err)
					continue
				}
				_, _ = fmt.Fprintln(table)
				if err := table.Flush(); err != nil {
					return err
				}
			}
			return errors.Join(problems...)
		},
	}
}

// describe adds what is in the file to the table. What kind of file it is, its extension says, or else its text.
func describe(table fields, file string, now time.Time) error {
	agentID := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	switch filepath.Ext(file) {
	case identity.PrivateExt:
		key, err := peer.LoadSigningKey(file)
		if err != nil {
			return err
		}
		defer clear(key)
		table.add("kind", "private key (its public half is shown)")
		table.add("agent id", plain(agentID))
		table.addKey(ed25519.PublicKey(key[ed25519.SeedSize:]))
		return nil
	case identity.PublicExt:
		key, err := identity.LoadPublicKey(file)
		if err != nil {
			return err
		}
		table.add("kind", "public key")
		table.add("agent id", plain(agentID))
		table.addKey(key)
		return nil
	}
	text, err := identity.ReadText(file)
	if err != nil {
		return err
	}
	credential, err := identity.Parse(text)
	if err == nil {
		table.add("kind", "credential")
		table.addCredential(credential, now)
		return nil
	}
	chain, chainErr := identity.ParseChain(text)
	if chainErr != nil {
		return fmt.Errorf("%s is no %s or %s file, no credential (%w) and no chain (%w)", file, identity.PrivateExt, identity.PublicExt, err, chainErr)
	}
	table.add("kind", fmt.Sprintf("credential chain of %d, anchor first", len(chain)))
	for _, intermediate := range chain {
		table.addCredential(intermediate, now)
	}
	return nil
}

// fields is a table of names and values.
type fields struct{ *tabwriter.Writer }

func newFields(out io.Writer) fields { return fields{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

func (f fields) add(name, value string) { _, _ = fmt.Fprintf(f, "%s\t%s\n", name, value) }

// addKey adds the forms in which people compare public keys. ai-memory's export-pub prints the second.
func (f fields) addKey(key ed25519.PublicKey) {
	f.add("hex", hex.EncodeToString(key))
	f.add("base64url", identity.PublicText(key))
	f.add("fingerprint", identity.Fingerprint(key))
}

func (f fields) addCredential(credential identity.Credential, now time.Time) {
	c := credential.Claims()
	f.add("subject", plain(c.SubjectAgentID))
	f.add("issuer", plain(c.IssuerID))
	f.add("trust domain", plain(c.TrustDomain))
	f.add("window", c.NotBefore.Format(time.RFC3339)+" to "+c.NotAfter.Format(time.RFC3339)+", "+standing(credential, now))
	f.addKey(c.SubjectKey)
}

// standing says where now is in the window of a credential.
func standing(credential identity.Credential, now time.Time) string {
	c := credential.Claims()
	switch identity.TagOf(credential.CheckWindow(now)) {
	case identity.TagNotYetValid:
		return "valid in " + span(c.NotBefore.Sub(now))
	case identity.TagExpired:
		return "expired " + span(now.Sub(c.NotAfter)) + " ago"
	default:
		return "valid for another " + span(c.NotAfter.Sub(now))
	}
}

// span writes a time in the largest unit of which it has at least two.
func span(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}} {
		if d >= 2*unit.size {
			return strconv.FormatInt(int64(d/unit.size), 10) + " " + unit.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + " s"
}

// plain quotes a name from elsewhere if it has more than printable ASCII in it.
func plain(name string) string {
	if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}
