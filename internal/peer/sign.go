package peer

import (
	"crypto/ed25519"
	"encoding/base64"
)

// signaturePrefix names the algorithm in the value of x-memory-sig.
const signaturePrefix = "ed25519="

// Sign returns the value of the x-memory-sig header for a body and the value of its x-memory-nonce header: "ed25519=" and the
// padded base64 of the Ed25519 signature over body, one zero byte, nonce. Nothing else is signed: no method, path, time or
// receiver.
func Sign(key ed25519.PrivateKey, body []byte, nonce string) string {
	value, _ := sign(key, body, nonce, make([]byte, 0, len(body)+1+len(nonce)))
	return value
}

// sign is Sign with a buffer for the signed bytes, which it overwrites and returns, possibly grown.
func sign(key ed25519.PrivateKey, body []byte, nonce string, buf []byte) (string, []byte) {
	buf = append(buf[:0], body...)
	buf = append(buf, 0)
	buf = append(buf, nonce...)
	signature := ed25519.Sign(key, buf)

	value := make([]byte, len(signaturePrefix), len(signaturePrefix)+base64.StdEncoding.EncodedLen(len(signature)))
	copy(value, signaturePrefix)
	return string(base64.StdEncoding.AppendEncode(value, signature)), buf
}
