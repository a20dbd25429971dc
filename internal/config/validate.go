package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"quorumbox/quorum"
)

// Validate returns everything that is wrong with the settings, joined; each error names the key, the value unless it may
// be a secret, the rule and what to do. It only reads: neither c nor a file is changed or opened.
func (c Config) Validate() error {
	var p problems
	p.checkDatabase(c.Database)
	p.add(checkSenderID(c.SenderID))
	if c.CredentialChainFile != "" && c.CredentialFile == "" {
		p.addf("credential_chain_file is set and credential_file is not: intermediates alone say nothing; set both or neither")
	}
	p.checkQuorum(c)
	p.checkPeerList(c.Peers)
	p.checkOutbound(c.Outbound)
	p.intRange("fan_out.workers", c.FanOut.Workers, 1, 1000)
	p.intRange("fan_out.max_items", c.FanOut.MaxItems, 1, 1000)
	p.intRange("fan_out.max_bytes", c.FanOut.MaxBytes, 64<<10, 2<<20)
	p.checkRetryAndRelay(c.Retry, c.Relay)
	p.checkJobs(c.Jobs)
	p.checkRetention(c.Retention, c.Retry)
	if c.Verify.Every != 0 {
		p.durationRange("verify.every", c.Verify.Every, time.Minute, 720*time.Hour)
	}
	p.intRange("verify.rate", c.Verify.Rate, 1, 1000)
	p.checkAdmin(c.Admin)
	p.checkTracing(c.Tracing)
	if c.Log.Format != LogJSON && c.Log.Format != LogText {
		p.addf("log.format is %s: want json or text", show(string(c.Log.Format)))
	}
	return errors.Join(p.errs...)
}

func (p *problems) intRange(key string, got, low, high int) {
	if got < low || got > high {
		p.addf("%s is %d: want %d to %d", key, got, low, high)
	}
}

func (p *problems) durationRange(key string, got, low, high time.Duration) {
	if got < low || got > high {
		p.addf("%s is %s: want %s to %s", key, durationText(got), durationText(low), durationText(high))
	}
}

func (p *problems) checkDatabase(d Database) {
	if !d.URL.IsZero() && d.URLFile != "" {
		p.addf("database.url and database.url_file are both set: remove one of them")
	}
	if text := d.URL.Reveal(); text != "" && !isConnString(text) {
		p.addf("database.url (not shown) is no connection string: want postgres://user@host:5432/name or host=... dbname=...")
	}
	p.intRange("database.max_conns", d.MaxConns, 4, 500)
}

// isConnString reports whether text can be one of the two forms that libpq documents ("Connection Strings"). pgx judges
// the rest when it connects.
func isConnString(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") ||
		regexp.MustCompile(`^\s*[a-z_]+\s*=`).MatchString(text)
}

// reservedSenders are the agent ids that receivers refuse from a sender (wire protocol, "Agent id grammar").
func reservedSenders() []string {
	return []string{
		"daemon", "system", "federation-catchup", "subscription-dispatch",
		"ai:http-internal", "ai:migrate", "export-internal", "governance-internal",
	}
}

func checkSenderID(id string) error {
	switch {
	case id == "":
		return errors.New("sender_id is empty and this machine has no host name to make one from: set sender_id, for example host:writer-1")
	case !regexp.MustCompile(`^[A-Za-z0-9_\-:@./]{1,128}$`).MatchString(id), strings.Contains(id, ".."), strings.HasPrefix(id, "/"):
		return fmt.Errorf("sender_id is %s: want 1 to 128 of A-Z a-z 0-9 _ - : @ . / without .. and not starting with /", show(id))
	case slices.Contains(reservedSenders(), id):
		return fmt.Errorf("sender_id is %q: peers refuse this name, which ai-memory reserves; choose another", id)
	}
	return nil
}

func (p *problems) checkQuorum(c Config) {
	p.durationRange("quorum.grace", c.Quorum.Grace, 0, time.Second)
	p.checkRule("quorum", c.Quorum.Writes, c.Quorum.AckTimeout, c)
	p.checkNamespaces(c)
}

// checkRule judges the writes and the ack timeout of the rule at key against the rest of the settings.
func (p *problems) checkRule(key string, writes quorum.Writes, ackTimeout time.Duration, c Config) {
	n := 1 + len(c.Peers)
	if w := writes.Count(); w > n {
		p.addf("%s.writes is %d: want at most %d, since there are %d members: the local commit, which counts, and %d peers;"+
			" lower it or add peers", key, w, n, n, len(c.Peers))
	}
	p.durationRange(key+".ack_timeout", ackTimeout, 10*time.Millisecond, time.Minute)
	if c.Quorum.Grace >= ackTimeout {
		p.addf("quorum.grace is %s: want less than %s.ack_timeout, which is %s",
			durationText(c.Quorum.Grace), key, durationText(ackTimeout))
	}
	if ackTimeout >= c.Jobs.Timeout-JobMargin {
		p.addf("%s.ack_timeout is %s: want less than jobs.timeout (%s) minus %s for writing the verdict down; lower it or raise jobs.timeout",
			key, durationText(ackTimeout), durationText(c.Jobs.Timeout), durationText(JobMargin))
	}
}

func (p *problems) checkPeerList(peers []Peer) {
	if len(peers) > MaxPeers {
		p.addf("peers has %d entries: want at most %d; more need a second tier of writers", len(peers), MaxPeers)
	}
	ids, urls := map[string]int{}, map[string]int{}
	for i, peer := range peers {
		key := fmt.Sprintf("peers[%d]", i)
		p.checkPeer(key, peer)
		if first, taken := ids[peer.ID]; taken && peer.ID != "" {
			p.addf("%s.id is %s: peers[%d] has it already; give each peer its own", key, show(peer.ID), first)
		} else {
			ids[peer.ID] = i
		}
		same := strings.ToLower(peer.BaseURL())
		if first, taken := urls[same]; taken && same != "" {
			p.addf("%s.url is the one of peers[%d], without regard to case and a trailing /: one peer would be counted twice; remove one", key, first)
		} else {
			urls[same] = i
		}
	}
}

func (p *problems) checkPeer(key string, peer Peer) {
	switch {
	case peer.ID == "":
		p.addf("%s.id is empty: give the peer a name, for example peer-a", key)
	case len(peer.ID) > MaxPeerIDLength || !regexp.MustCompile(`^[a-z0-9]+([_-][a-z0-9]+)*$`).MatchString(peer.ID):
		p.addf("%s.id is %s: want lower-case letters and digits, joined by single - or _, at most %d characters", key, show(peer.ID), MaxPeerIDLength)
	}
	p.add(checkPeerURL(key+".url", peer.URL))
	p.intRange(key+".connections", peer.Connections, 1, 256)
	if peer.CatchupRate != 0 {
		p.intRange(key+".catchup_rate", peer.CatchupRate, 100, 1_000_000)
	}
	for _, network := range peer.Allow {
		p.add(checkNetwork(key+".allow", network))
	}
	p.checkPeerTLS(key, peer)
}

func checkPeerURL(key, text string) error {
	return checkBaseURL(key, text, "want a base URL such as https://host:9077", "api_key_file")
}

// checkBaseURL never quotes the URL: it may hold a password. secretKey is the setting where that belongs.
func checkBaseURL(key, text, example, secretKey string) error {
	if text == "" {
		return fmt.Errorf("%s is empty: %s", key, example)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%s (not shown) cannot be parsed: %s", key, example)
	case u.User != nil:
		return fmt.Errorf("%s (not shown) has a user or password: remove it and use %s", key, secretKey)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%s (not shown) is neither http:// nor https://: %s", key, example)
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%s (not shown) has no host: %s", key, example)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return fmt.Errorf("%s (not shown) has a query or fragment: request paths are appended to it, so remove them", key)
	case strings.ContainsAny(text, " \t"):
		return fmt.Errorf("%s (not shown) has blanks: %s", key, example)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%s has port %.10q: want 1 to 65535", key, port)
		}
	}
	return nil
}

// checkNetwork refuses networks that would not do what their writer thinks.
func checkNetwork(key string, network netip.Prefix) error {
	switch {
	case !network.IsValid():
		return fmt.Errorf("%s has an invalid network: want one such as 10.0.0.0/8", key)
	case network.Addr().Is4In6():
		return fmt.Errorf("%s has %s: write it as an IPv4 network", key, network)
	case network.Masked() != network:
		return fmt.Errorf("%s has %s, whose address has bits beyond its length: write %s", key, network, network.Masked())
	case network.Bits() == 0:
		return fmt.Errorf("%s has %s, which is every address: name the networks that the peer is in", key, network)
	case network.Addr().IsLinkLocalUnicast():
		return fmt.Errorf("%s has %s: link-local addresses, where clouds serve credentials, are never dialled; remove it", key, network)
	}
	return nil
}

func (p *problems) checkRetryAndRelay(retry Retry, relay Relay) {
	p.durationRange("retry.initial", retry.Initial, 10*time.Millisecond, time.Minute)
	p.durationRange("retry.max", retry.Max, 10*time.Millisecond, time.Hour)
	if retry.Max < retry.Initial {
		p.addf("retry.max is %s: want at least retry.initial, which is %s", durationText(retry.Max), durationText(retry.Initial))
	}
	p.durationRange("retry.hold", retry.Hold, time.Second, time.Hour)
	p.intRange("retry.workers", retry.Workers, 1, 64)
	p.durationRange("retry.zombie", retry.Zombie, time.Second, time.Hour)
	p.durationRange("relay.poll_min", relay.PollMin, 100*time.Microsecond, time.Second)
	p.durationRange("relay.poll_max", relay.PollMax, 100*time.Microsecond, 10*time.Second)
	if relay.PollMax < relay.PollMin {
		p.addf("relay.poll_max is %s: want at least relay.poll_min, which is %s", durationText(relay.PollMax), durationText(relay.PollMin))
	}
}

func (p *problems) checkJobs(jobs Jobs) {
	p.durationRange("jobs.timeout", jobs.Timeout, time.Second, 10*time.Minute)
	p.durationRange("jobs.rescue_after", jobs.RescueAfter, time.Second, time.Hour)
	p.durationRange("jobs.completed_retention", jobs.CompletedRetention, 10*time.Second, 24*time.Hour)
	p.durationRange("jobs.soft_stop", jobs.SoftStop, 0, 5*time.Minute)
	if jobs.RescueAfter < jobs.Timeout+RescueMargin {
		p.addf("jobs.rescue_after is %s: want at least jobs.timeout (%s) plus %s, or clock skew makes River take live jobs for abandoned;"+
			" raise it or lower jobs.timeout", durationText(jobs.RescueAfter), durationText(jobs.Timeout), durationText(RescueMargin))
	}
}

func (p *problems) checkRetention(r Retention, retry Retry) {
	const year = 8760 * time.Hour
	p.durationRange("retention.history", r.History, time.Second, 720*time.Hour)
	if r.History < retry.Zombie {
		p.addf("retention.history is %s: want at least retry.zombie, which is %s: what a late push may have set back is found in the history",
			durationText(r.History), durationText(retry.Zombie))
	}
	p.intRange("retention.backlog_entries", r.BacklogEntries, 1000, 1_000_000_000)
	p.durationRange("retention.backlog_age", r.BacklogAge, time.Minute, year)
	p.durationRange("retention.tombstones", r.Tombstones, time.Hour, year)
}

// durationText returns d as one writes it: 10m, not 10m0s.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
