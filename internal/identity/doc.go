// Package identity makes, reads, checks and holds what a sender shows to peers beside its signature: credentials that an
// authority of the fleet has signed, chains of intermediate authorities, and the key files behind them.
//
// A credential says that an agent id owns an Ed25519 key, within a trust domain and a window of time. It travels with every push
// (x-memory-cred, and x-memory-cred-chain where intermediates are between its issuer and a root that the peers know), so peers
// need the roots alone and no key file for each sender. It is no secret: what proves it is the signature of the push by the
// subject's key.
//
// The bytes are CBOR, canonical as the reference writes them: definite lengths, shortest integers, keys in plain string order
// (which is not the order of RFC 8949 section 4.2). What is read is read strictly: no other key, no key twice, nothing behind the
// end, sizes bounded; the order of the keys is free, because signatures are checked over the bytes as they came.
//
// What can be wrong with a credential is a closed list, [Tag], with the texts that peers log.
package identity
