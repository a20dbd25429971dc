package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	maxURLBytes = 2048
	maxIDBytes  = 128
)

// ParseURL checks the base URL of a peer and returns it without trailing slashes. It must be absolute, http or https, with a
// host in ASCII and no userinfo, query or fragment; a path is kept, for a peer behind a prefix. Errors say what to fix and never
// repeat the URL, because what is wrong with it may be that it holds a password.
func ParseURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("url is empty: set it to the base URL of the peer, such as https://peer.example:9077")
	}
	if len(raw) > maxURLBytes {
		return nil, fmt.Errorf("url has %d bytes: at most %d are allowed", len(raw), maxURLBytes)
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c > '~' {
			return nil, errors.New("url holds a blank or a character outside of ASCII: remove it, and write the host in its xn-- form")
		}
	}
	if strings.ContainsAny(raw, "?#") {
		return nil, errors.New("url has a query or a fragment: remove everything from the ? or # on")
	}
	u, err := url.Parse(strings.TrimRight(raw, "/"))
	if err != nil {
		return nil, errors.New("url cannot be read: write it as https://host:port")
	}
	switch u.Scheme {
	case "http", "https":
	default:
		return nil, errors.New("url must begin with http:// or https://")
	}
	if u.User != nil {
		return nil, errors.New("url holds a user name or password: remove it and use api_key_file")
	}
	if u.Opaque != "" || u.Hostname() == "" {
		return nil, errors.New("url has no host: write it as https://host:port")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return nil, err
	}
	if strings.HasSuffix(u.Host, ":") {
		return nil, errors.New("url has an empty port: write the port or leave the colon out")
	}
	if text := u.Port(); text != "" {
		if port, err := strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return nil, errors.New("url has a port outside of 1..65535: correct it")
		}
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return nil, errors.New("url has a . or .. in its path: write the path without it")
		}
	}
	return u, nil
}

// checkHost refuses hosts that look like something else than they are: IPv6 zones, and numbers that some resolvers read as an
// IPv4 address (127.1, 0x7f000001, 017700000001).
func checkHost(host string) error {
	if strings.Contains(host, ":") {
		if addr, err := netip.ParseAddr(host); err != nil || addr.Zone() != "" {
			return errors.New("url has an IPv6 address that cannot be used: write it in brackets and without a zone")
		}
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return errors.New("url has a host that is no host name: use letters, digits, hyphens and single dots")
		}
	}
	if len(name) > 253 {
		return errors.New("url has a host name of more than 253 bytes")
	}
	last := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	if last[0] < '0' || last[0] > '9' {
		return nil
	}
	// A host whose last label is a number is an IPv4 address (WHATWG URL, "ends in a number"); only the usual form is taken.
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		if _, err := netip.ParseAddr(host); err != nil {
			return errors.New("url has a host that ends in a number and is no IPv4 address: write it as four decimal numbers")
		}
	}
	return nil
}

// CheckSenderID reports whether id is a sender_agent_id that peers accept: 1..128 characters of A-Z a-z 0-9 _ - : @ . /, no
// "..", no leading "/", and none of the names that the daemons reserve for themselves.
func CheckSenderID(id string) error {
	switch {
	case id == "":
		return errors.New("sender id is empty: set it, for example to host:<hostname>")
	case len(id) > maxIDBytes:
		return fmt.Errorf("sender id has %d characters: at most %d are allowed", len(id), maxIDBytes)
	case strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:@./") != "":
		return errors.New("sender id may hold only letters, digits and _ - : @ . /")
	case strings.Contains(id, ".."):
		return errors.New(`sender id may not hold ".."`)
	case strings.HasPrefix(id, "/"):
		return errors.New(`sender id may not begin with "/"`)
	}
	switch id {
	case "daemon", "system", "federation-catchup", "subscription-dispatch",
		"ai:http-internal", "ai:migrate", "export-internal", "governance-internal":
		return fmt.Errorf("sender id %q is reserved by the peers: choose another", id)
	}
	return nil
}
