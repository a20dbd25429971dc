// Package locks has the numbers of the advisory locks that quorumbox takes in a database, in one place so that no two things take the same one.
// Applications that take advisory locks in the same database must choose others.
package locks

// Locks with one key of 64 bits, of each of which a fleet has one.
const (
	Migrate int64 = 0x71756f72756d6231 // one process migrates at a time; older programs take it, too
	Relay   int64 = 0x71756f72756d6232 // the relay that works
	Sweep   int64 = 0x71756f72756d6233 // the sweep that runs
	Prune   int64 = 0x71756f72756d6234 // the round of pruning that runs
	Verify  int64 = 0x71756f72756d6235 // the loop that compares peers with the store
)

// First keys of locks with two keys of 32 bits, which Postgres keeps apart from those with one.
const (
	Lane      int32 = 0x71756f72 // with the number of a lane: no batch is dispatched in it
	Namespace int32 = 0x71756f73 // with a hash of a namespace, in SQL only: one transaction changes its standard at a time
	Probe     int32 = 0x71627072 // with a hash of a peer's id: one retry of it chooses lanes at a time
)
