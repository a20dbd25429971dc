// Package fault lets tests kill or delay the program at named points. In an ordinary build [Hit] does nothing; only a build with
// the tag "faults" looks at the environment variable FAULTS.
package fault

// Point names a place in the program, between two durable steps.
type Point string

// The points, in the order in which an entry passes them.
const (
	// RelayChosen: entries are chosen, the dispatch is not committed.
	RelayChosen Point = "relay_chosen"
	// RelayDispatched: batches and job are committed, nobody has the job.
	RelayDispatched Point = "relay_dispatched"
	// FanOutLoaded: a fan-out is ready to push, nothing is sent.
	FanOutLoaded Point = "fan_out_loaded"
	// FanOutAcked: every peer has answered, nothing is recorded.
	FanOutAcked Point = "fan_out_acked"
	// FanOutDecided: the verdict is recorded, stragglers are still being pushed.
	FanOutDecided Point = "fan_out_decided"
	// FanOutRecorded: verdict, lagging peers and the end of the job are recorded.
	FanOutRecorded Point = "fan_out_recorded"
	// RetryClaimed: a retry holds its lanes, nothing is sent.
	RetryClaimed Point = "retry_claimed"
	// RetryAcked: the peer has acknowledged a retry's pushes, the cursors are not recorded.
	RetryAcked Point = "retry_acked"
	// RetryRecorded: the cursors are recorded, the job goes on.
	RetryRecorded Point = "retry_recorded"
	// RepairClaimed: a repair holds its lane and has noted that its push may arrive late, nothing is sent.
	RepairClaimed Point = "repair_claimed"
	// RepairPushed: the peer has answered a repair, nothing is recorded.
	RepairPushed Point = "repair_pushed"
	// RepairRecorded: what came of a repair is recorded, the job is not done.
	RepairRecorded Point = "repair_recorded"
)

// Points returns every point in order.
func Points() []Point {
	return []Point{
		RelayChosen, RelayDispatched, FanOutLoaded, FanOutAcked, FanOutDecided, FanOutRecorded, RetryClaimed, RetryAcked, RetryRecorded,
		RepairClaimed, RepairPushed, RepairRecorded,
	}
}
