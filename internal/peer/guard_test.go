package peer_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"quorumbox/internal/peer"
)

func TestAllowedByDefault(t *testing.T) {
	t.Parallel()
	tests := []struct {
		addr string
		want bool
	}{
		{"8.8.8.8", true},
		{"1.1.1.1", true},
		{"100.63.255.255", true},
		{"100.128.0.0", true},
		{"172.15.255.255", true},
		{"172.32.0.0", true},
		{"198.17.255.255", true},
		{"198.20.0.0", true},
		{"223.255.255.255", true},
		{"::ffff:8.8.8.8", true},
		{"2606:4700::1111", true},
		{"2a00:1450::1", true},
		{"3ffe::1", true},

		// IANA IPv4 Special-Purpose Address Registry.
		{"0.0.0.0", false},
		{"0.1.2.3", false},
		{"10.0.0.1", false},
		{"100.64.0.1", false},
		{"100.127.255.255", false},
		{"127.0.0.1", false},
		{"127.255.255.255", false},
		{"169.254.0.1", false},
		{"169.254.169.254", false},
		{"172.16.0.1", false},
		{"172.31.255.255", false},
		{"192.0.0.1", false},
		{"192.0.0.8", false},
		{"192.0.0.9", false},
		{"192.0.0.10", false},
		{"192.0.0.170", false},
		{"192.0.0.192", false},
		{"192.0.2.1", false},
		{"192.31.196.1", false},
		{"192.52.193.1", false},
		{"192.88.99.1", false},
		{"192.168.1.1", false},
		{"192.175.48.1", false},
		{"198.18.0.1", false},
		{"198.19.255.255", false},
		{"198.51.100.1", false},
		{"203.0.113.1", false},
		{"224.0.0.1", false},
		{"239.255.255.255", false},
		{"240.0.0.1", false},
		{"255.255.255.255", false},
		{"168.63.129.16", false},
		{"100.100.100.200", false},
		{"::ffff:127.0.0.1", false},
		{"::ffff:169.254.169.254", false},
		{"::ffff:10.0.0.1", false},

		// IANA IPv6 Special-Purpose Address Registry, and what is not global unicast.
		{"::", false},
		{"::1", false},
		{"::8.8.8.8", false},
		{"::ffff:0:8.8.8.8", false},
		{"64:ff9b::8.8.8.8", false},
		{"64:ff9b::169.254.169.254", false},
		{"64:ff9b:1::1", false},
		{"100::1", false},
		{"100:0:0:1::1", false},
		{"2001::1", false},
		{"2001:1::1", false},
		{"2001:1::2", false},
		{"2001:1::3", false},
		{"2001:2::1", false},
		{"2001:3::1", false},
		{"2001:4:112::1", false},
		{"2001:10::1", false},
		{"2001:20::1", false},
		{"2001:30::1", false},
		{"2001:db8::1", false},
		{"2002:808:808::1", false},
		{"2002:7f00:1::1", false},
		{"2620:4f:8000::1", false},
		{"3fff::1", false},
		{"5f00::1", false},
		{"fc00::1", false},
		{"fd00:ec2::254", false},
		{"fd20:ce::254", false},
		{"fe80::1", false},
		{"fe80::1%eth0", false},
		{"febf::1", false},
		{"fec0::1", false},
		{"ff02::1", false},
		{"4000::1", false},
	}
	for _, test := range tests {
		t.Run(test.addr, func(t *testing.T) {
			t.Parallel()
			err := peer.Allowed(netip.AddrPortFrom(netip.MustParseAddr(test.addr), 9077), nil)
			if got := err == nil; got != test.want {
				t.Errorf("got %v, want allowed %v", err, test.want)
			}
			if err != nil && !errors.Is(err, peer.ErrBlocked) {
				t.Errorf("got %v, want ErrBlocked", err)
			}
		})
	}
}

func TestAllowedWithAllowList(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, addr, allow string
		want              bool
	}{
		{"private network", "10.1.2.3", "10.0.0.0/8", true},
		{"outside of it", "11.1.2.3", "10.0.0.0/8", true},
		{"other private network", "192.168.1.1", "10.0.0.0/8", false},
		{"loopback", "127.0.0.1", "127.0.0.0/8", true},
		{"mapped address in an IPv4 network", "::ffff:10.1.2.3", "10.0.0.0/8", true},
		{"IPv4 address in a mapped network", "10.1.2.3", "::ffff:10.0.0.0/104", true},
		{"private IPv6", "fd12::1", "fd00::/8", true},
		{"private IPv6 with a zone", "fd12::1%eth0", "fd00::/8", true},
		{"everything", "192.168.1.1", "0.0.0.0/0", true},
		{"IPv4 everything is not IPv6 everything", "fd12::1", "0.0.0.0/0", false},
		{"NAT64", "64:ff9b::8.8.8.8", "64:ff9b::/96", true},

		{"link-local", "169.254.1.1", "169.254.0.0/16", false},
		{"link-local exactly", "169.254.1.1", "169.254.1.1/32", false},
		{"metadata", "169.254.169.254", "0.0.0.0/0", false},
		{"mapped metadata", "::ffff:169.254.169.254", "::/0", false},
		{"metadata by NAT64", "64:ff9b::169.254.169.254", "64:ff9b::/96", false},
		{"metadata by 6to4", "2002:a9fe:a9fe::1", "2002::/16", false},
		{"metadata by Teredo", "2001:0:808:808:0:0:5601:5601", "2001::/32", false},
		{"IPv4-compatible metadata", "::169.254.169.254", "::/0", false},
		{"Azure", "168.63.129.16", "168.63.129.16/32", false},
		{"Alibaba", "100.100.100.200", "100.64.0.0/10", false},
		{"AWS IPv6", "fd00:ec2::254", "fd00::/8", false},
		{"IPv6 link-local", "fe80::1%eth0", "fe80::/10", false},
		{"multicast", "224.0.0.1", "0.0.0.0/0", false},
		{"IPv6 multicast", "ff02::1", "::/0", false},
		{"unspecified", "0.0.0.0", "0.0.0.0/0", false},
		{"IPv6 unspecified", "::", "::/0", false},
		{"broadcast", "255.255.255.255", "0.0.0.0/0", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := peer.Allowed(netip.AddrPortFrom(netip.MustParseAddr(test.addr), 9077), []netip.Prefix{netip.MustParsePrefix(test.allow)})
			if got := err == nil; got != test.want {
				t.Errorf("got %v, want allowed %v", err, test.want)
			}
		})
	}
}

func TestAllowedRefusesNonsense(t *testing.T) {
	t.Parallel()
	if err := peer.Allowed(netip.AddrPort{}, []netip.Prefix{netip.MustParsePrefix("::/0")}); !errors.Is(err, peer.ErrBlocked) {
		t.Errorf("no address: got %v, want ErrBlocked", err)
	}
	if err := peer.Allowed(netip.MustParseAddrPort("8.8.8.8:0"), nil); !errors.Is(err, peer.ErrBlocked) {
		t.Errorf("port 0: got %v, want ErrBlocked", err)
	}
	if err := peer.Allowed(netip.MustParseAddrPort("8.8.8.8:1"), []netip.Prefix{{}}); err != nil {
		t.Errorf("an invalid prefix allows and forbids nothing: got %v", err)
	}
}

// FuzzDialGuard checks laws that hold for every address, with predicates of netip as the oracle where it has some.
func FuzzDialGuard(f *testing.F) {
	for _, seed := range []string{"127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "64:ff9b::a9fe:a9fe", "8.8.8.8", "2606:4700::1", "2002:a9fe:a9fe::1"} {
		addr := netip.MustParseAddr(seed)
		f.Add(addr.AsSlice(), uint16(9077), uint8(8))
	}
	f.Fuzz(func(t *testing.T, raw []byte, port uint16, bits uint8) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		byDefault := peer.Allowed(netip.AddrPortFrom(addr, port), nil)
		byAll := peer.Allowed(netip.AddrPortFrom(addr, port), everything)

		plain := addr.Unmap()
		if byDefault == nil && (!plain.IsGlobalUnicast() || plain.IsPrivate() || plain.IsLoopback()) {
			t.Errorf("%s is allowed by default", addr)
		}
		if byAll == nil && (plain.IsLinkLocalUnicast() || plain.IsMulticast() || plain.IsUnspecified() || strings.HasPrefix(plain.String(), "169.254.")) {
			t.Errorf("%s is allowed by an allow list", addr)
		}
		if byDefault == nil && byAll != nil {
			t.Errorf("%s is allowed by default and refused by an allow list", addr)
		}
		if plain.Is4() {
			mapped := netip.AddrPortFrom(netip.AddrFrom16(plain.As16()), port)
			if (peer.Allowed(mapped, nil) == nil) != (byDefault == nil) {
				t.Errorf("%s and its mapped form differ", addr)
			}
		}
		if plain.Is6() {
			zoned := netip.AddrPortFrom(plain.WithZone("eth0"), port)
			if (peer.Allowed(zoned, nil) == nil) != (byDefault == nil) {
				t.Errorf("%s and its zoned form differ", addr)
			}
		}
		if prefix, err := plain.Prefix(int(bits)); err == nil && byAll == nil {
			if err := peer.Allowed(netip.AddrPortFrom(addr, port), []netip.Prefix{prefix}); err != nil {
				t.Errorf("%s is refused inside %s: %v", addr, prefix, err)
			}
		}
	})
}
