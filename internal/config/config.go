// Package config reads and checks the program's settings: one YAML file, the environment over it, nothing else.
//
// Every setting is a field of [Config] with its key and meaning in the field's tags; docs/configuration.md is made from
// them. Unknown keys are refused in both places. Nothing in an error of this package is a secret.
package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"quorumbox/internal/outbound"
	"quorumbox/internal/secret"
	"quorumbox/quorum"
)

// Config is every setting of the program. Start from [Default] or [Load]; the zero value does not pass
// [Config.Validate]. A Config is a plain value: the one who has it may read it from several goroutines.
type Config struct {
	// Database says where the tables are.
	Database Database `koanf:"database"`
	// SenderID is the agent id that peers see as the sender. Grammar and reserved names: wire protocol, "Agent id".
	SenderID string `koanf:"sender_id" default:"host:<hostname>" doc:"the agent id that peers see as the sender: 1 to 128 of A-Z a-z 0-9 _ - : @ . /, and none of the names that ai-memory reserves; the environment variable AI_MEMORY_FED_IDENTITY is another name for it"`
	// SigningKeyFile is the path of a raw 32-byte Ed25519 seed with mode 0600. Empty: pushes are not signed.
	SigningKeyFile string `koanf:"signing_key_file" doc:"file with the raw 32-byte Ed25519 seed that signs pushes, mode 0600; read again when it changes; empty: not signed"`
	// CredentialFile is the path of the credential that vouches for the signing key; its text is the whole header. Not a
	// secret. Empty: none.
	CredentialFile string `koanf:"credential_file" doc:"file with the credential for the signing key, the whole text of x-memory-cred; the environment variable AI_MEMORY_FED_CRED_PATH is another name for it; empty: none"`
	// CredentialChainFile is the path of the credential's intermediates. Empty: none; set only beside CredentialFile.
	CredentialChainFile string `koanf:"credential_chain_file" doc:"file with the credential's intermediates, the whole text of x-memory-cred-chain; the environment variable AI_MEMORY_FED_CRED_CHAIN_PATH is another name for it; empty: none"`
	// APIKeyFile is the path of the api key that is sent to every peer that has none of its own. Empty: no key.
	APIKeyFile string `koanf:"api_key_file" doc:"file with the api key for every peer that has none of its own, mode 0600; read again when it changes; empty: none"`
	// Quorum says when a write is held by enough members.
	Quorum Quorum `koanf:"quorum"`
	// Peers are who gets the entries. 0 to [MaxPeers].
	Peers []Peer `koanf:"peers" doc:"who gets the entries, 0 to 64"`
	// LenientAcks takes a 2xx answer whose body cannot be parsed for an acknowledgement, as the reference does.
	LenientAcks bool `koanf:"lenient_acks" doc:"true: as the reference, a 2xx answer whose body cannot be parsed counts as an acknowledgement; false: it does not, since it may come from something that is no peer"`
	// Outbound says which hosts may be sent to.
	Outbound Outbound `koanf:"outbound"`
	// FanOut bounds the pushes to all peers at once.
	FanOut FanOut `koanf:"fan_out"`
	// Retry bounds the pushes to a lagging peer.
	Retry Retry `koanf:"retry"`
	// Relay says how often to look for new entries.
	Relay Relay `koanf:"relay"`
	// Jobs is what River is told.
	Jobs Jobs `koanf:"jobs"`
	// Retention says how much of the past is kept.
	Retention Retention `koanf:"retention"`
	// Verify is the comparison in the background.
	Verify Verify `koanf:"verify"`
	// Admin is the operator's listener.
	Admin Admin `koanf:"admin"`
	// Tracing says where the spans of replication go.
	Tracing Tracing `koanf:"tracing"`
	// Log says what is logged, and how.
	Log Log `koanf:"log"`
}

// Database says where the tables are. URL and URLFile are alternatives: [Database.ConnString] reads the one that is set.
type Database struct {
	// URL is a postgres:// URL or a keyword=value string. Empty, with URLFile empty too: none.
	URL secret.Secret `koanf:"url" doc:"Postgres connection URL; the environment variable DATABASE_URL is another name for it; required, here or as url_file"`
	// URLFile is the path of a file that holds the URL, with mode 0600.
	URLFile string `koanf:"url_file" doc:"file with the connection URL, mode 0600, in place of url; read again for new connections when it changes"`
	// MaxConns is the size of the pool. 4 to 500.
	MaxConns int `koanf:"max_conns" doc:"most connections of one worker, 4 to 500"`
}

// Quorum says when a write is held by enough members, and how long the peers may take.
type Quorum struct {
	// Writes is W. It counts the local commit, as N does, which is 1 + peers.
	Writes quorum.Writes `koanf:"writes" doc:"all, majority or a number: how many members must hold a write; the local commit is one of them"`
	// AckTimeout is how long after its start a fan-out takes acknowledgements. 10ms to 1m, and below Jobs.Timeout by
	// more than [JobMargin].
	AckTimeout time.Duration `koanf:"ack_timeout" doc:"how long peers may take to acknowledge, 10ms to 1m"`
	// Grace is how long to wait for stragglers once the verdict is known. 0s to 1s, and below AckTimeout.
	Grace time.Duration `koanf:"grace" doc:"how long to wait for stragglers once the verdict is known and before it is written down, 0s to 1s"`
	// Namespaces are other rules for some namespaces: the first one whose glob matches holds. 0 to [MaxRules].
	Namespaces []NamespaceRule `koanf:"namespaces" doc:"other rules for some namespaces, 0 to 100; the first one whose glob matches holds, and without one writes and ack_timeout"`
}

// Peer is one receiver.
type Peer struct {
	// ID names the peer in tables, logs, metrics and the River queue peer_<id>; it stays when the URL changes. Lower-case
	// words joined by single "-" or "_", at most 40 characters; unique.
	ID string `koanf:"id" default:"required" doc:"name of the peer, which stays when its URL changes: lower-case letters and digits, joined by single - or _, at most 40"`
	// URL is the base URL, http or https. Unique without regard to case and a trailing "/".
	URL string `koanf:"url" default:"required" doc:"base URL, http or https, without user, query and fragment"`
	// APIKeyFile is the path of this peer's api key. Empty: the common one.
	APIKeyFile string `koanf:"api_key_file" doc:"file with this peer's api key, mode 0600; read again when it changes; empty: the common api_key_file"`
	// Allow are the networks that the peer's name may resolve to beside public addresses.
	Allow []netip.Prefix `koanf:"allow" doc:"networks that the peer's addresses may lie in, such as 10.0.0.0/8; empty: public addresses only"`
	// Connections is the size of the peer's connection pool. 1 to 256.
	Connections int `koanf:"connections" default:"8" doc:"most connections to the peer, 1 to 256"`
	// CatchupRate bounds how fast one worker pushes the peer what it missed. 0 (no bound), or 100 to 1,000,000.
	CatchupRate int `koanf:"catchup_rate" default:"20000" doc:"most entries a second that one worker pushes to the peer when it catches up, 100 to 1000000; 0: no bound; retry.workers bounds the requests at a time"`
	// ClientCertFile is the path of the certificates, in PEM, that the peer is shown; its own first. Empty: none. Set only
	// with ClientKeyFile and for https. See [Peer.NewClientCertificate].
	ClientCertFile string `koanf:"client_cert_file" doc:"PEM file with the certificate that the peer is shown, and its intermediates; read again when it changes; empty: none"`
	// ClientKeyFile is the path of the certificate's private key in PEM.
	ClientKeyFile string `koanf:"client_key_file" doc:"PEM file with the private key of client_cert_file, mode 0600; read again when it changes"`
	// CAFile is the path of the authorities, in PEM, that alone may vouch for the peer's certificate. Empty: those of the
	// system. Set only for https.
	CAFile string `koanf:"ca_file" doc:"PEM file with the authorities that may vouch for the peer's certificate, in place of the system's; read again when it changes; empty: the system's"`
}

// FanOut bounds the pushes to all peers at once.
type FanOut struct {
	// Workers is how many fan-outs run at once. 1 to 1000.
	Workers int `koanf:"workers" doc:"fan-outs that run at once, 1 to 1000"`
	// MaxItems is the most elements of a push. 1 to 1000, which is where peers answer 400.
	MaxItems int `koanf:"max_items" doc:"most entries of one push, 1 to 1000 (peers refuse more)"`
	// MaxBytes is the most bytes of a push. 64 KiB to 2 MiB, which is where peers answer 413.
	MaxBytes int `koanf:"max_bytes" doc:"most bytes of one push, 65536 to 2097152 (peers refuse more)"`
}

// Retry bounds the pushes to a lagging peer.
type Retry struct {
	// Initial is the pause after the first failure. 10ms to 1m.
	Initial time.Duration `koanf:"initial" doc:"pause after the first failure of a peer, 10ms to 1m"`
	// Max is the longest pause. Initial to 1h.
	Max time.Duration `koanf:"max" doc:"longest pause, initial to 1h"`
	// Hold is the pause after a failure that only a person can mend: refused credentials, a wrong URL. 1s to 1h.
	Hold time.Duration `koanf:"hold" doc:"pause after a failure that only a person can mend, such as refused credentials or a wrong URL, 1s to 1h"`
	// Workers is how many retry jobs of one peer run at once. 1 to 64.
	Workers int `koanf:"workers" doc:"retry jobs of one peer that run at once, 1 to 64"`
	// Zombie is how long after a push was given up the peer may still apply it. 1s to 1h. See ADR 11.
	Zombie time.Duration `koanf:"zombie" doc:"how long after it was given up a push may still be applied by a peer, 1s to 1h: the kernel's 20s, the peer's own limit for a request (60s), and a margin; what such a push may have set back is written again then"`
}

// Relay says how often to look for new entries: PollMin while there are some, rising to PollMax while there are none.
type Relay struct {
	// PollMin is the shortest pause between two looks. 100us to 1s.
	PollMin time.Duration `koanf:"poll_min" doc:"pause between two looks for new entries while busy, 100us to 1s"`
	// PollMax is the longest. PollMin to 10s.
	PollMax time.Duration `koanf:"poll_max" doc:"the same while idle, poll_min to 10s"`
}

// Jobs is what River is told.
type Jobs struct {
	// Timeout is how long a job may run. 1s to 10m.
	Timeout time.Duration `koanf:"timeout" doc:"how long a job may run, 1s to 10m, above quorum.ack_timeout by more than 2s"`
	// RescueAfter is how long after its start a job counts as abandoned. At least Timeout + [RescueMargin], at most 1h.
	RescueAfter time.Duration `koanf:"rescue_after" doc:"how long after its start River takes a job for abandoned, from timeout + 10s to 1h"`
	// CompletedRetention is how long completed jobs stay visible. 10s to 24h.
	CompletedRetention time.Duration `koanf:"completed_retention" doc:"how long completed jobs stay in the job pages, 10s to 24h"`
	// SoftStop is how long running jobs may go on when the program is told to stop, before they are cancelled. 0s to 5m.
	SoftStop time.Duration `koanf:"soft_stop" doc:"how long running jobs may go on after a signal to stop, 0s to 5m"`
}

// Retention says how much of the past is kept.
type Retention struct {
	// History is how long a batch is kept after its verdict once every peer has it. 1s to 720h, and at least Retry.Zombie: what a late push may have
	// set back is found in it.
	History time.Duration `koanf:"history" doc:"how long entries are kept after their verdict once every peer has them, from retry.zombie to 720h; an Await of older ones says that they are unknown"`
	// BacklogEntries is the most dispatched entries that are kept for a lagging peer. 1000 to 1,000,000,000.
	BacklogEntries int `koanf:"backlog_entries" doc:"most dispatched entries that are kept for a peer that misses them, 1000 to 1000000000; a peer past it needs a snapshot"`
	// BacklogAge is how long a dispatched entry is kept for a lagging peer. 1m to 8760h.
	BacklogAge time.Duration `koanf:"backlog_age" doc:"how long a dispatched entry is kept for a peer that misses it, 1m to 8760h; a peer past it needs a snapshot"`
	// Tombstones is how long it is remembered that a memory was deleted. 1h to 8760h.
	Tombstones time.Duration `koanf:"tombstones" doc:"how long it is remembered that a memory was deleted, 1h to 8760h: what a repeated delete answers with, and what tells a deleted memory from one that was never here"`
}

// Verify is the comparison of the peers with the store that one worker of the fleet does in the background.
type Verify struct {
	// Every is the pause between two comparisons. 1m to 720h, or 0s: none.
	Every time.Duration `koanf:"every" doc:"how often one worker of the fleet compares each active peer with the store, 1m to 720h; 0s: never"`
	// Rate is how fast a peer is read. 1 to 1000.
	Rate int `koanf:"rate" doc:"most requests of that comparison to a peer in a second, 1 to 1000"`
	// Repair brings what differs to the store's state.
	Repair bool `koanf:"repair" doc:"true: what differs is repaired, but not what the store never had; false: it is logged and counted"`
}

// Log says what is logged, and how. Logs go to standard error.
type Log struct {
	// Level is debug, info, warn or error.
	Level slog.Level `koanf:"level" doc:"debug, info, warn or error"`
	// Format is json or text.
	Format LogFormat `koanf:"format" doc:"json or text"`
}

// LogFormat is how a log line looks.
type LogFormat string

// The formats of log lines.
const (
	LogJSON LogFormat = "json"
	LogText LogFormat = "text"
)

// Bounds and margins that the settings are checked against, and that other packages may rely on.
const (
	// MaxPeers is the most peers of one writer.
	MaxPeers = 64
	// MaxRules is the most rules of quorum.namespaces, and of outbound.rules: each write and each push looks through them.
	MaxRules = 100
	// MaxPeerIDLength is the most characters of a peer's id: it is part of a River queue name.
	MaxPeerIDLength = 40
	// JobMargin is what a fan-out job needs beside waiting for peers: leasing its batches and writing the verdict down.
	JobMargin = 2 * time.Second
	// RescueMargin is twice the clock skew between worker and database that is provided for (5s): River takes the
	// horizon from the worker's clock and a job's start from the database's. A smaller one would rescue live jobs.
	RescueMargin = 10 * time.Second
)

// Default returns the settings without a file and with an empty environment. The sender's id is taken from the host
// name; it is empty, and refused by [Config.Validate], if the host has none.
func Default() Config {
	return Config{
		Database: Database{MaxConns: 20},
		SenderID: defaultSenderID(),
		Quorum:   Quorum{AckTimeout: 2 * time.Second, Grace: 2 * time.Millisecond}, // writes: majority is the zero value
		FanOut:   FanOut{Workers: 16, MaxItems: 1000, MaxBytes: 1536 << 10},
		Retry:    Retry{Initial: time.Second, Max: 15 * time.Second, Hold: time.Minute, Workers: 4, Zombie: 90 * time.Second},
		Outbound: Outbound{Default: outbound.Allow},
		Relay:    Relay{PollMin: time.Millisecond, PollMax: 50 * time.Millisecond},
		Jobs: Jobs{
			Timeout:            8 * time.Second,
			RescueAfter:        30 * time.Second,
			CompletedRetention: 10 * time.Minute,
			SoftStop:           10 * time.Second,
		},
		Retention: Retention{History: time.Hour, BacklogEntries: 5_000_000, BacklogAge: 72 * time.Hour, Tombstones: 720 * time.Hour},
		Verify:    Verify{Rate: 2}, // every: 0s, never
		Admin:     Admin{Listen: "127.0.0.1:9080"},
		Tracing:   Tracing{SampleRatio: 0.1}, // endpoint: none
		Log:       Log{Level: slog.LevelInfo, Format: LogJSON},
	}
}

// DefaultPeer returns the settings of a peer that names neither.
func DefaultPeer() Peer { return Peer{Connections: 8, CatchupRate: 20_000} }

func defaultSenderID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return ""
	}
	return "host:" + host
}

// Policy returns the quorum over the local commit and all peers that holds where no rule of quorum.namespaces does.
func (c Config) Policy() (quorum.Policy, error) { return c.Quorum.Writes.Policy(1 + len(c.Peers)) }

// PeerIDs returns the ids of all peers, in the order of the configuration.
func (c Config) PeerIDs() []string {
	ids := make([]string, len(c.Peers))
	for i, p := range c.Peers {
		ids[i] = p.ID
	}
	return ids
}

// BaseURL returns the peer's URL without trailing slashes: what request paths are appended to.
func (p Peer) BaseURL() string { return strings.TrimRight(p.URL, "/") }

// ConnString returns the connection string, read from URLFile if that is set ([secret.ReadFile]). It is empty if
// neither is set.
func (d Database) ConnString() (secret.Secret, error) {
	if d.URLFile == "" {
		return d.URL, nil
	}
	text, err := secret.ReadFile(d.URLFile)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("config: database.url_file: %w", err)
	}
	return text, nil
}
