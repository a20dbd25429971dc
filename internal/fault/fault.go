// Package fault lets tests kill or delay the program at named points. In an ordinary build [Hit] does nothing; only a build with
// the tag "faults" looks at the environment variable FAULTS.
package fault

// Point names a place in the program, beside a durable step: before it, inside its transaction, or after it.
type Point string

// The points, in about the order in which an entry passes them.
const (
	// RelayChosen: entries are chosen, the dispatch is not begun.
	RelayChosen Point = "relay_chosen"
	// RelayMade: batches are made, without their job and not committed.
	RelayMade Point = "relay_made"
	// RelayDispatched: batches and job are committed, nobody has the job.
	RelayDispatched Point = "relay_dispatched"
	// FanOutTaken: a worker has the job, and has read nothing.
	FanOutTaken Point = "fan_out_taken"
	// FanOutReclaimed: the batches have a new token and lease, nothing is sent.
	FanOutReclaimed Point = "fan_out_reclaimed"
	// FanOutPickedUp: lanes of peers that lag a little are leased to the fan-out.
	FanOutPickedUp Point = "fan_out_picked_up"
	// FanOutNoted: lanes that a peer cannot be pushed yet are recorded as lagging.
	FanOutNoted Point = "fan_out_noted"
	// FanOutLoaded: a fan-out is ready to push, nothing is sent.
	FanOutLoaded Point = "fan_out_loaded"
	// ShipmentPart: the peer has some pushes of a shipment, and others are not sent.
	ShipmentPart Point = "shipment_part"
	// ShipmentHalved: a push was refused, a half of it is about to be sent.
	ShipmentHalved Point = "shipment_halved"
	// FanOutPushed: a peer has answered, nothing is recorded.
	FanOutPushed Point = "fan_out_pushed"
	// WaitTaken: a lane that a fan-out waited for is leased to it, nothing of it is sent.
	WaitTaken Point = "wait_taken"
	// BringTaken: a lane that another one waits for is leased to a fan-out, nothing of it is sent.
	BringTaken Point = "bring_taken"
	// BringPushed: the peer has answered to what was brought, nothing of that is recorded.
	BringPushed Point = "bring_pushed"
	// BringRecorded: what was brought is recorded, the lane that waited is not pushed.
	BringRecorded Point = "bring_recorded"
	// FanOutDecided: the verdict is recorded, stragglers are still being pushed.
	FanOutDecided Point = "fan_out_decided"
	// FanOutAcked: every peer has answered, not all is recorded.
	FanOutAcked Point = "fan_out_acked"
	// FanOutRecording: something that a fan-out records is written with its retries, and not committed.
	FanOutRecording Point = "fan_out_recording"
	// FanOutCompleting: verdict, lagging peers and the end of the job are written, and not committed.
	FanOutCompleting Point = "fan_out_completing"
	// FanOutRecorded: verdict, lagging peers and the end of the job are recorded.
	FanOutRecorded Point = "fan_out_recorded"
	// RetryClaiming: a retry has leased lanes, and not committed.
	RetryClaiming Point = "retry_claiming"
	// RetryClaimed: a retry holds its lanes, nothing is sent.
	RetryClaimed Point = "retry_claimed"
	// RetryAnnounced: how far a retry is about to push is recorded, nothing is sent.
	RetryAnnounced Point = "retry_announced"
	// LeaseRenewed: a lease was renewed while a push is under way.
	LeaseRenewed Point = "lease_renewed"
	// RetryAcked: the peer has acknowledged a retry's pushes, the cursors are not recorded.
	RetryAcked Point = "retry_acked"
	// RetryRecording: cursors are moved, without the refusals and not committed.
	RetryRecording Point = "retry_recording"
	// RetryRecorded: the cursors are recorded, the job goes on.
	RetryRecorded Point = "retry_recorded"
	// RetryClaimedMore: the peer's other lanes are leased to the retry as well.
	RetryClaimedMore Point = "retry_claimed_more"
	// RetryFailed: a retry's push failed, nothing of that is recorded.
	RetryFailed Point = "retry_failed"
	// RetryReleasing: lanes are given back, and not committed.
	RetryReleasing Point = "retry_releasing"
	// RetryReleased: lanes are given back, the job has not ended.
	RetryReleased Point = "retry_released"
	// RedeliverClaiming: a lane is leased for a refused entry, and not committed.
	RedeliverClaiming Point = "redeliver_claiming"
	// RedeliverClaimed: a redelivery holds the lane, nothing is sent.
	RedeliverClaimed Point = "redeliver_claimed"
	// RedeliverPushed: the peer has answered, nothing is recorded.
	RedeliverPushed Point = "redeliver_pushed"
	// RedeliverRecording: the lane is given back, without what became of the refusal and not committed.
	RedeliverRecording Point = "redeliver_recording"
	// RedeliverRecorded: what became of the refusal is recorded, the job has not ended.
	RedeliverRecorded Point = "redeliver_recorded"
	// SweepFanOut: an expired fan-out has a new token and job, not committed.
	SweepFanOut Point = "sweep_fan_out"
	// SweepLagging: orphaned lanes have new retries without jobs, not committed.
	SweepLagging Point = "sweep_lagging"
	// SweepRefusal: a refused entry has a job, not committed.
	SweepRefusal Point = "sweep_refusal"
	// SweepRecorded: what was taken over is recorded.
	SweepRecorded Point = "sweep_recorded"
	// OperateChosen: an operator's change of refusals is about to be made.
	OperateChosen Point = "operate_chosen"
	// OperateRecorded: an operator's change of refusals is recorded, and not reported.
	OperateRecorded Point = "operate_recorded"
	// SweepDoubts: pushes in doubt that cannot arrive any more became repairs, not committed.
	SweepDoubts Point = "sweep_doubts"
	// SweepRepair: repairs have a job, not committed.
	SweepRepair Point = "sweep_repair"
	// RepairClaiming: a repair has leased its lane and noted its push, and not committed.
	RepairClaiming Point = "repair_claiming"
	// RepairClaimed: a repair holds its lane and has noted that its push may arrive late, nothing is sent.
	RepairClaimed Point = "repair_claimed"
	// RepairPushed: the peer has answered a repair, nothing is recorded.
	RepairPushed Point = "repair_pushed"
	// RepairRecording: the lane is given back, without what became of the repairs and not committed.
	RepairRecording Point = "repair_recording"
	// RepairRecorded: what came of a repair is recorded, the job is not done.
	RepairRecorded Point = "repair_recorded"
	// PruneChosen: old batches and entries are deleted, the transaction is not committed.
	PruneChosen Point = "prune_chosen"
	// PruneCommitted: they are gone.
	PruneCommitted Point = "prune_committed"
	// SnapshotClaimed: a job holds a peer's snapshot, nothing is sent.
	SnapshotClaimed Point = "snapshot_claimed"
	// SnapshotPushed: the peer has answered a part of its snapshot, the progress is not recorded.
	SnapshotPushed Point = "snapshot_pushed"
	// SnapshotRecorded: the progress is recorded, the job goes on.
	SnapshotRecorded Point = "snapshot_recorded"
	// SnapshotComplete: everything is pushed, the peer's lanes are still parked.
	SnapshotComplete Point = "snapshot_complete"
	// SnapshotEnded: the peer follows the log, the job is not done.
	SnapshotEnded Point = "snapshot_ended"
)

// Points returns every point in order.
func Points() []Point {
	return []Point{
		RelayChosen, RelayMade, RelayDispatched, FanOutTaken, FanOutReclaimed, FanOutPickedUp, FanOutNoted, FanOutLoaded, ShipmentPart,
		ShipmentHalved, FanOutPushed, WaitTaken, BringTaken, BringPushed, BringRecorded, FanOutDecided, FanOutAcked, FanOutRecording,
		FanOutCompleting, FanOutRecorded, RetryClaiming, RetryClaimed, RetryAnnounced, LeaseRenewed, RetryAcked, RetryRecording,
		RetryRecorded, RetryClaimedMore, RetryFailed, RetryReleasing, RetryReleased, RedeliverClaiming, RedeliverClaimed,
		RedeliverPushed, RedeliverRecording, RedeliverRecorded, SweepFanOut, SweepLagging, SweepRefusal, SweepRecorded, OperateChosen,
		OperateRecorded,
		RepairClaiming, RepairClaimed, RepairPushed, RepairRecording, RepairRecorded, SweepDoubts, SweepRepair,
		PruneChosen, PruneCommitted,
		SnapshotClaimed, SnapshotPushed, SnapshotRecorded, SnapshotComplete, SnapshotEnded,
	}
}
