package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// CheckPublicKey reports whether key is the encoding of an Ed25519 public key, as receivers check it when they load one: 32 bytes
// that are a point of the curve. Half of all byte strings are none, so it tells many wrong files. Its error goes on after the
// name of the key.
func CheckPublicKey(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("has %d bytes: an Ed25519 public key has %d", len(key), ed25519.PublicKeySize)
	}
	if !onCurve(key) {
		return errors.New("is no point of the curve")
	}
	return nil
}

// onCurve decides by RFC 8032 section 5.1.3: there is an x to the encoded y if (y²-1)/(dy²+1) is a square modulo p. As Go and the
// reference do, it takes y beyond p and any sign of x = 0.
func onCurve(key []byte) bool {
	one := big.NewInt(1)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)

	digits := slices.Clone(key)
	digits[31] &= 0x7f // the sign of x
	slices.Reverse(digits)
	y2 := new(big.Int).SetBytes(digits)
	y2.Mul(y2, y2)
	u := new(big.Int).Sub(y2, one)
	v := new(big.Int).Mul(d, y2)
	v.Add(v, one).Mod(v, p)
	v.ModInverse(v, p) // dy²+1 is never 0, because -1/d is no square
	x2 := u.Mul(u, v)
	return big.Jacobi(x2.Mod(x2, p), p) != -1
}
