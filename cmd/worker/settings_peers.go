package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/config"
	"quorumbox/internal/follow"
	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

// newPeers makes a client for each configured peer. The error names everything that is wrong with the files that the settings
// name. warn is told what keeps no peer from being sent to, now or when a file has changed; it must be safe for concurrent use.
// observe may be nil.
func newPeers(cfg config.Config, warn func(error), observe func(peer.Attempt)) (map[string]*peer.Client, error) {
	return newTracedPeers(cfg, warn, observe, nil)
}

// newTracedPeers is newPeers whose pushes are traced, if tracer is not nil.
func newTracedPeers(cfg config.Config, warn func(error), observe func(peer.Attempt), tracer trace.Tracer) (map[string]*peer.Client, error) {
	common, err := newCommonPeerConfig(cfg, warn)
	common.Observe, common.Tracer = observe, tracer
	problems := []error{err}
	clients := make(map[string]*peer.Client, len(cfg.Peers))
	for _, p := range cfg.Peers {
		c, err := newPeerConfig(common, p, warn)
		client, newErr := peer.New(c)
		problems = append(problems, err, newErr)
		clients[p.ID] = client
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return clients, nil
}

// newCommonPeerConfig returns what all peers have in common.
func newCommonPeerConfig(cfg config.Config, warn func(error)) (peer.Config, error) {
	common := peer.Config{SenderID: cfg.SenderID, LenientAcks: peer.LenientAcks(cfg.LenientAcks)}
	policy, err := cfg.Outbound.Policy()
	common.Gate = policy.Check
	return common, errors.Join(err, followCommonFiles(&common, cfg, warn))
}

// followCommonFiles makes what all peers have in common that which the files hold at each push.
func followCommonFiles(common *peer.Config, cfg config.Config, warn func(error)) error {
	return errors.Join(followSigner(common, cfg, warn), followAPIKey(common, cfg.APIKeyFile, warn))
}

// followSigner makes the peers' signing key and credential those that the files hold at each push.
func followSigner(common *peer.Config, cfg config.Config, warn func(error)) error {
	path := cfg.SigningKeyFile
	var err error
	if path != "" {
		var key *follow.Files[ed25519.PrivateKey]
		key, err = follow.New(func() (ed25519.PrivateKey, error) { return peer.LoadSigningKey(path) }, func(err error) {
			warn(fmt.Errorf("the changed signing_key_file cannot be used, going on with the last key: %w", err))
		}, path, peer.PublicKeyFile(path))
		if err != nil {
			err = fmt.Errorf("signing_key_file: %w", err)
		} else {
			common.GetSigningKey = key.Get
		}
	}
	if cfg.CredentialFile != "" {
		common.Credential = newCredential(cfg, common.GetSigningKey, warn)
	}
	return err
}

// newCredential returns what gives each push the credential that the files hold then. It has looked at them once, so that what is
// wrong with them is known at the start. key is the signing key of this moment, nil if pushes are not signed.
func newCredential(cfg config.Config, key func() ed25519.PrivateKey, warn func(error)) func(signer ed25519.PublicKey) (cred, chain string) {
	holder := identity.NewHolder(cfg.CredentialFile, cfg.CredentialChainFile)
	credential := func(signer ed25519.PublicKey) (cred, chain string) {
		cred, chain, warning := holder.Headers(signer)
		if warning != nil {
			warn(warning)
		}
		return cred, chain
	}
	if key == nil {
		warn(errors.New("credential_file is set and signing_key_file is not: peers take a credential only with a signature"))
		credential(nil)
		return credential
	}
	holder.Expect(cfg.SenderID)
	signer, _ := key().Public().(ed25519.PublicKey)
	credential(signer)
	return credential
}

// newPeerConfig returns common with what is p's own.
func newPeerConfig(common peer.Config, p config.Peer, warn func(error)) (peer.Config, error) {
	c := common
	c.ID, c.URL, c.AllowNets, c.MaxConns = p.ID, p.URL, p.Allow, p.Connections
	var problems []error
	refuse := func(err error) { problems = append(problems, fmt.Errorf("peer %s: %w", p.ID, err)) }
	warnOf := func(warning error) { warn(fmt.Errorf("peer %s: %w", p.ID, warning)) }
	if err := followAPIKey(&c, p.APIKeyFile, warnOf); err != nil {
		refuse(err)
	}
	authorities, err := p.NewRootCAs(warnOf)
	switch {
	case err != nil:
		refuse(err)
	case authorities != nil:
		c.GetRootCAs = func() *x509.CertPool { return authorities.Get() }
	}
	certificate, err := p.NewClientCertificate(warnOf)
	switch {
	case err != nil:
		refuse(err)
	case certificate != nil:
		c.ClientCertificate = certificate.Get
	}
	return c, errors.Join(problems...)
}

// followAPIKey makes a peer's api key that which the file holds at each push. Without a file it stays what it is.
func followAPIKey(c *peer.Config, path string, warn func(error)) error {
	if path == "" {
		return nil
	}
	key, err := secret.OpenFile(path, peer.CheckAPIKey, func(err error) { warn(fmt.Errorf("api_key_file: %w", err)) })
	if err != nil {
		return fmt.Errorf("api_key_file: %w", err)
	}
	c.GetAPIKey = key.Get
	return nil
}
