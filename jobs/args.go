// Package jobs is the worker's side of quorumbox: the River jobs that push batches to the peers, and the schedules and leases around them.
//
// Our own tables are the truth and River's rows are transport: a job that is lost, deleted or run twice changes nothing that is
// recorded, because recording is fenced by a lease of our own and the [Sweeper] makes a job for whatever has none.
package jobs

import (
	"fmt"

	"github.com/riverqueue/river"
)

// Kinds are the kinds of all jobs.
func Kinds() []string {
	return []string{FanOutArgs{}.Kind(), PeerRetryArgs{}.Kind(), RedeliverArgs{}.Kind(), RepairArgs{}.Kind(), SnapshotArgs{}.Kind()}
}

// FanOutQueue is the River queue of the fan_out jobs.
const FanOutQueue = "fan_out"

// PeerQueue is the River queue of one peer's jobs, so that pausing the queue pauses the peer.
func PeerQueue(peer string) string { return "peer_" + peer }

// FanOutArgs asks for one fan-out: pushing the batches that name it to all peers. Ids only.
type FanOutArgs struct {
	FanOut int64 `json:"fan_out"`
}

// Kind names the job for River.
func (FanOutArgs) Kind() string { return "fan_out" }

// InsertOpts puts the job into the queue of fan-outs.
func (FanOutArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: FanOutQueue, MaxAttempts: maxAttempts}
}

// PeerRetryArgs asks for a lagging lane of a peer to be brought up to date. Retry is the number that the row of the lagging lane
// carries: a job with another number is out of date and does nothing.
type PeerRetryArgs struct {
	Peer  string `json:"peer"`
	Lane  int16  `json:"lane"`
	Retry int64  `json:"retry"`
}

// Kind names the job for River.
func (PeerRetryArgs) Kind() string { return "peer_retry" }

// InsertOpts puts the job into the peer's own queue, so that no peer waits behind another.
func (a PeerRetryArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: PeerQueue(a.Peer), MaxAttempts: maxAttempts}
}

// RedeliverArgs asks for an entry that a peer refused to be pushed to it once more.
type RedeliverArgs struct {
	Peer  string `json:"peer"`
	Entry int64  `json:"entry"`
}

// Kind names the job for River.
func (RedeliverArgs) Kind() string { return "redeliver" }

// InsertOpts puts the job into the peer's own queue.
func (a RedeliverArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: PeerQueue(a.Peer), MaxAttempts: maxAttempts}
}

func (a RedeliverArgs) String() string { return fmt.Sprintf("entry %d for peer %s", a.Entry, a.Peer) }

// RepairArgs asks for what is due of a lane at a peer to be brought to the store's state.
type RepairArgs struct {
	Peer string `json:"peer"`
	Lane int16  `json:"lane"`
}

// Kind names the job for River.
func (RepairArgs) Kind() string { return "repair" }

// InsertOpts puts the job into the peer's own queue.
func (a RepairArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: PeerQueue(a.Peer), MaxAttempts: maxAttempts}
}

// SnapshotArgs asks for a peer to be brought the store's current state. Retry is the number that the row of the snapshot carries: a job with another
// number is out of date and does nothing.
type SnapshotArgs struct {
	Peer  string `json:"peer"`
	Retry int64  `json:"retry"`
}

// Kind names the job for River.
func (SnapshotArgs) Kind() string { return "snapshot" }

// InsertOpts puts the job into the peer's own queue.
func (a SnapshotArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: PeerQueue(a.Peer), MaxAttempts: maxAttempts}
}

// maxAttempts bounds the attempts that end in an error of ours (a peer's failures snooze instead). A job that uses them up is
// discarded by River and made again by the sweeper.
const maxAttempts = 25

func (a PeerRetryArgs) String() string { return fmt.Sprintf("peer %s, lane %d", a.Peer, a.Lane) }
