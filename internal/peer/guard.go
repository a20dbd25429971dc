package peer

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrBlocked is wrapped by every refusal of [Allowed].
var ErrBlocked = errors.New("address is not allowed")

// block is a network that is refused, and why.
type block struct {
	prefix string
	reason string
}

// Allowed reports whether a peer may be dialled at an address, as nil or an error that wraps [ErrBlocked] and names the
// address and the reason. It is asked for every address after name resolution, so a name that resolves to an address inside
// the operator's network gets nowhere unless that network is allowed.
//
// Never allowed are link-local addresses, the metadata services of clouds, multicast and the unspecified address, also when
// they hide in a NAT64, 6to4, Teredo or IPv4-compatible address. Of the rest, what lies in allow is allowed, and else everything
// but the special-purpose blocks of the IANA registries (RFC 6890) and, for IPv6, what is not global unicast (2000::/3).
// IPv4-mapped IPv6 addresses and prefixes count as IPv4. It is a pure function.
func Allowed(addr netip.AddrPort, allow []netip.Prefix) error {
	ip := addr.Addr().Unmap().WithZone("")
	if !ip.IsValid() {
		return fmt.Errorf("%w: no valid address", ErrBlocked)
	}
	if addr.Port() == 0 {
		return fmt.Errorf("%w: %s has port 0", ErrBlocked, ip)
	}
	for _, candidate := range append(embedded(ip), ip) {
		if reason := contains(neverBlocks(), candidate); reason != "" {
			return fmt.Errorf("%w: %s is %s", ErrBlocked, ip, reason)
		}
	}
	for _, prefix := range allow {
		if unmapPrefix(prefix).Contains(ip) {
			return nil
		}
	}
	if reason := contains(specialBlocks(), ip); reason != "" {
		return fmt.Errorf("%w: %s is %s and in no allowed network", ErrBlocked, ip, reason)
	}
	if ip.Is6() && !netip.MustParsePrefix("2000::/3").Contains(ip) {
		return fmt.Errorf("%w: %s is not global unicast and in no allowed network", ErrBlocked, ip)
	}
	return nil
}

func contains(blocks []block, ip netip.Addr) string {
	for _, b := range blocks {
		if netip.MustParsePrefix(b.prefix).Contains(ip) {
			return b.reason
		}
	}
	return ""
}

// unmapPrefix turns a prefix of IPv4-mapped addresses into the IPv4 prefix that it means. netip keeps the two apart.
func unmapPrefix(prefix netip.Prefix) netip.Prefix {
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		return netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix
}

// embedded returns the IPv4 addresses that an IPv6 address carries for a translator or tunnel to use.
func embedded(ip netip.Addr) []netip.Addr {
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(ip):
		return []netip.Addr{at(12)}
	case netip.MustParsePrefix("2002::/16").Contains(ip):
		return []netip.Addr{at(2)}
	case netip.MustParsePrefix("2001::/32").Contains(ip):
		// The client's address is stored inverted (RFC 4380 section 4).
		client := [4]byte{^b[12], ^b[13], ^b[14], ^b[15]}
		return []netip.Addr{at(4), netip.AddrFrom4(client)}
	case netip.MustParsePrefix("::/96").Contains(ip) && !ip.IsLoopback():
		return []netip.Addr{at(12)}
	default:
		return nil
	}
}

// neverBlocks are refused even inside an allowed network: no peer lives there, and what does gives away credentials.
func neverBlocks() []block {
	return []block{
		{"0.0.0.0/32", "unspecified"},
		{"::/128", "unspecified"},
		{"169.254.0.0/16", "link-local"},
		{"fe80::/10", "link-local"},
		{"224.0.0.0/4", "multicast"},
		{"ff00::/8", "multicast"},
		{"255.255.255.255/32", "broadcast"},
		{"100.100.100.200/32", "a metadata service"},
		{"168.63.129.16/32", "a metadata service"},
		{"192.0.0.192/32", "a metadata service"},
		{"fd00:ec2::254/128", "a metadata service"},
		{"fd20:ce::254/128", "a metadata service"},
		{"fd00:42::42/128", "a metadata service"},
	}
}

// specialBlocks are the IANA IPv4 and IPv6 Special-Purpose Address Registries, and what they leave out: the deprecated 6to4
// relays, site-local and IPv4-compatible blocks, and the reserved class E.
func specialBlocks() []block {
	return []block{
		{"0.0.0.0/8", "this network (RFC 791)"},
		{"10.0.0.0/8", "private (RFC 1918)"},
		{"100.64.0.0/10", "carrier-grade NAT (RFC 6598)"},
		{"127.0.0.0/8", "loopback"},
		{"172.16.0.0/12", "private (RFC 1918)"},
		{"192.0.0.0/24", "for protocol assignments (RFC 6890)"},
		{"192.0.2.0/24", "for documentation (RFC 5737)"},
		{"192.31.196.0/24", "AS112 (RFC 7535)"},
		{"192.52.193.0/24", "AMT (RFC 7450)"},
		{"192.88.99.0/24", "a 6to4 relay (RFC 7526)"},
		{"192.168.0.0/16", "private (RFC 1918)"},
		{"192.175.48.0/24", "AS112 (RFC 7534)"},
		{"198.18.0.0/15", "for benchmarks (RFC 2544)"},
		{"198.51.100.0/24", "for documentation (RFC 5737)"},
		{"203.0.113.0/24", "for documentation (RFC 5737)"},
		{"240.0.0.0/4", "reserved (RFC 1112)"},
		{"::1/128", "loopback"},
		{"::/96", "IPv4-compatible (RFC 4291)"},
		{"64:ff9b::/96", "NAT64 (RFC 6052)"},
		{"64:ff9b:1::/48", "NAT64 (RFC 8215)"},
		{"100::/64", "discard-only (RFC 6666)"},
		{"100:0:0:1::/64", "a dummy prefix (RFC 9780)"},
		{"2001::/32", "Teredo (RFC 4380)"},
		{"2001::/23", "for protocol assignments (RFC 2928)"},
		{"2001:db8::/32", "for documentation (RFC 3849)"},
		{"2002::/16", "6to4 (RFC 3056)"},
		{"2620:4f:8000::/48", "AS112 (RFC 7534)"},
		{"3fff::/20", "for documentation (RFC 9637)"},
		{"5f00::/16", "for segment routing (RFC 9602)"},
		{"fc00::/7", "private (RFC 4193)"},
		{"fec0::/10", "site-local (RFC 3879)"},
	}
}
