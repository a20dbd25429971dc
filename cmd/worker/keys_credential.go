package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
)

// backdate is how far before now a credential begins to be valid, for peers whose clocks are behind.
const backdate = time.Minute

// credentialFlags are the flags of the command keys credential.
type credentialFlags struct {
	issuerKey   string
	issuerID    string
	subject     string
	subjectKey  string
	trustDomain string
	lifetime    time.Duration
	notBefore   string
	chain       string
	out         string
	verify      bool
	bundle      string
}

func newKeysCredentialCommand() *cobra.Command {
	var flags credentialFlags
	cmd := &cobra.Command{
		Use:   "credential (--issuer-key FILE … --out FILE | --verify --bundle DIR FILE)",
		Short: "Issue a credential for a public key, or verify one as peers do",
		Long: `Issue a credential: the issuer's key says that the subject owns a public key, within a
trust domain and for a lifetime. The file is put into place by renaming, so that a worker
which uses it (credential_file) never reads a part of it, and takes the new one at its next
push. The same command issues a credential for an intermediate authority: its subject is
the authority's name.

With --chain the issuer is an intermediate, and the chain is checked to lead to it.

With --verify, check a credential as a peer does that trusts the roots in --bundle: names,
trust domain, signatures, windows, and at most one intermediate. The command exits with 1
and says which rule is broken if the credential would not be taken.`,
		Example: `  worker keys credential --issuer-key root.priv --issuer-id root --subject ai:leader \
    --subject-key ai:leader.pub --trust-domain fleet.example --lifetime 1h --out ai:leader.cred
  worker keys credential --verify --bundle /etc/ai-memory/roots ai:leader.cred`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(cmd, args); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			if flags.verify {
				return verifyCredential(cmd, flags, args[0])
			}
			return issueCredential(cmd, flags)
		},
	}
	set := cmd.Flags()
	set.StringVar(&flags.issuerKey, "issuer-key", "", "private key of the issuer, a raw 32-byte seed with mode 0600")
	set.StringVar(&flags.issuerID, "issuer-id", "", "name of the issuer: that of the root at the peers, or the intermediate's subject")
	set.StringVar(&flags.subject, "subject", "", "agent id that owns the key (with --verify: the id it must name)")
	set.StringVar(&flags.subjectKey, "subject-key", "", "public key of the subject, 32 raw bytes")
	set.StringVar(&flags.trustDomain, "trust-domain", "", "scope of the credential (with --verify: the only one that is taken)")
	set.DurationVar(&flags.lifetime, "lifetime", time.Hour, "how long from now on, or from --not-before on, it is valid")
	set.StringVar(&flags.notBefore, "not-before", "", "when it begins to be valid, as 2006-01-02T15:04:05Z (default a minute ago)")
	set.StringVar(&flags.chain, "chain", "", "file with the intermediates above the credential")
	set.StringVar(&flags.out, "out", "", "file to put the credential into")
	set.BoolVar(&flags.verify, "verify", false, "verify the credential in FILE")
	set.StringVar(&flags.bundle, "bundle", "", "for --verify: folder of the trusted roots, <issuer id>.pub with 32 raw bytes each")
	return cmd
}

// check returns what is wrong with the command line.
func (flags credentialFlags) check(cmd *cobra.Command, args []string) error {
	required, foreign := []string{"issuer-key", "issuer-id", "subject", "subject-key", "trust-domain", "out"}, []string{"bundle"}
	if flags.verify {
		required, foreign = []string{"bundle"}, []string{"issuer-key", "issuer-id", "subject-key", "lifetime", "not-before", "out"}
	}
	var missing []string
	for _, name := range required {
		if flag := cmd.Flags().Lookup(name); flag.Value.String() == "" {
			missing = append(missing, "--"+name)
		}
	}
	for _, name := range foreign {
		if cmd.Flags().Changed(name) && flags.verify {
			return fmt.Errorf("--%s has no use beside --verify", name)
		} else if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s has no use without --verify", name)
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("missing: %s", strings.Join(missing, ", "))
	case flags.verify && len(args) == 0:
		return errors.New("name the file to verify")
	case !flags.verify && len(args) > 0:
		return errors.New("a FILE has no use without --verify: name the output with --out")
	case flags.lifetime < time.Second:
		return errors.New("--lifetime must be 1s or more")
	}
	return nil
}

func issueCredential(cmd *cobra.Command, flags credentialFlags) error {
	now := time.Now()
	claims := identity.Claims{
		IssuerID: flags.issuerID, SubjectAgentID: flags.subject, TrustDomain: flags.trustDomain,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(flags.lifetime),
	}
	if flags.notBefore != "" {
		begin, err := time.Parse(time.RFC3339, flags.notBefore)
		if err != nil {
			return &usageError{errors.New("--not-before must be a time such as 2006-01-02T15:04:05Z"), cmd.CommandPath()}
		}
		claims.NotBefore, claims.NotAfter = begin, begin.Add(flags.lifetime)
	}
	var err error
	if claims.SubjectKey, err = identity.LoadPublicKey(flags.subjectKey); err != nil {
		return fmt.Errorf("--subject-key: %w", err)
	}
	chain, err := readChain(flags.chain)
	if err != nil {
		return fmt.Errorf("--chain: %w", err)
	}
	credential, err := signClaims(flags.issuerKey, claims)
	if err != nil {
		return err
	}
	if err := chain.CheckLinks(credential); err != nil {
		return fmt.Errorf("--chain does not lead to the issuer: %w", err)
	}
	if err := identity.WriteFile(flags.out, []byte(credential.Header()+"\n")); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	table := newFields(cmd.OutOrStdout())
	table.add("file", flags.out)
	table.addCredential(credential, now)
	noteAbout(cmd, chain, claims.NotAfter)
	return table.Flush()
}

func signClaims(issuerKey string, claims identity.Claims) (identity.Credential, error) {
	key, err := peer.LoadSigningKey(issuerKey)
	if err != nil {
		return identity.Credential{}, fmt.Errorf("--issuer-key: %w", err)
	}
	defer clear(key)
	if public, ok := key.Public().(ed25519.PublicKey); ok && public.Equal(claims.SubjectKey) && claims.SubjectAgentID != claims.IssuerID {
		return identity.Credential{}, errors.New("the subject's key is that of the issuer: --subject-key must be the subject's own")
	}
	return identity.Issue(key, claims)
}

// noteAbout tells what about a chain would surprise. Leaves under it expire at until; the zero time says nothing.
func noteAbout(cmd *cobra.Command, chain identity.Chain, until time.Time) {
	if len(chain)+1 > identity.DefaultMaxDepth {
		cmd.PrintErrf("note: a chain of %d: peers take one intermediate unless they are told otherwise\n", len(chain))
	}
	for _, intermediate := range chain {
		if c := intermediate.Claims(); c.NotAfter.Before(until.Truncate(time.Second)) {
			cmd.PrintErrf("note: %s in the chain is valid until %s only\n", plain(c.SubjectAgentID), c.NotAfter.Format(time.RFC3339))
		}
	}
}

// readChain reads a chain file. No name is an empty chain.
func readChain(file string) (identity.Chain, error) {
	if file == "" {
		return nil, nil
	}
	text, err := identity.ReadText(file)
	if err != nil {
		return nil, err
	}
	chain, err := identity.ParseChain(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return chain, nil
}

// readCredential reads a credential file.
func readCredential(file string) (identity.Credential, error) {
	text, err := identity.ReadText(file)
	if err != nil {
		return identity.Credential{}, err
	}
	credential, err := identity.Parse(text)
	if err != nil {
		return identity.Credential{}, fmt.Errorf("%s: %w", file, err)
	}
	return credential, nil
}

func verifyCredential(cmd *cobra.Command, flags credentialFlags, file string) error {
	bundle, err := identity.LoadBundle(flags.bundle)
	if bundle == nil {
		return err
	}
	if err != nil {
		cmd.PrintErrln("note: passed over, as peers do:", err)
	}
	credential, err := readCredential(file)
	if err != nil {
		return err
	}
	chain, err := readChain(flags.chain)
	if err != nil {
		return fmt.Errorf("--chain: %w", err)
	}
	now := time.Now()
	if err := identity.Verify(credential, chain, identity.Options{Bundle: bundle, TrustDomain: flags.trustDomain, Now: now}); err != nil {
		return fmt.Errorf("%s is not valid: %w", file, err)
	}
	if subject := credential.Claims().SubjectAgentID; flags.subject != "" && subject != flags.subject {
		return fmt.Errorf("%s is valid for %s, not for %s", file, plain(subject), flags.subject)
	}
	table := newFields(cmd.OutOrStdout())
	table.add("valid", file)
	table.addCredential(credential, now)
	return table.Flush()
}

func newKeysChainCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "chain --out FILE CREDENTIAL...",
		Short: "Put the credentials of intermediates together, the one that a root signed first",
		Long: `Put the credentials of intermediate authorities together to the chain that workers send
(credential_chain_file). The first is the one that a root signed; each other is issued by
the one before it. The worker's own credential is not among them.`,
		Example: `  worker keys chain --out region.chain region-ca.cred`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			if out == "" {
				return &usageError{errors.New("--out is missing"), cmd.CommandPath()}
			}
			chain := make(identity.Chain, len(files))
			for i, file := range files {
				var err error
				if chain[i], err = readCredential(file); err != nil {
					return err
				}
			}
			if err := chain.CheckLinks(identity.Credential{}); err != nil {
				return fmt.Errorf("these are no chain in this order: %w", err)
			}
			if err := identity.WriteFile(out, []byte(chain.Header()+"\n")); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			table := newFields(cmd.OutOrStdout())
			table.add("file", out)
			for _, intermediate := range chain {
				table.addCredential(intermediate, time.Now())
			}
			noteAbout(cmd, chain, time.Time{})
			return table.Flush()
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to put the chain into (required)")
	return cmd
}
