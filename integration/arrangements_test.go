package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quorumbox/internal/fault"
)

// arrangement is what surrounds kills so that workers get to some points: what the third peer does, what the other worker does, and what else goes on.
type arrangement struct {
	name   string
	points []fault.Point
	faults string // of the third peer

	most    int           // a worker dies the 1st to most-th time that it gets to the point
	both    bool          // both workers die there: only one of a fleet gets there
	with    []string      // further faults of the worker that dies
	others  []fault.Point // at one of which the other worker dies; none: it lives
	command []string      // what dies there, if no worker; an operator's
	prepare string        // statements that are run before the first worker starts
	disturb string        // a statement that is run all the time

	// do is a writer's step; nil: operations of all kinds.
	do       func(f *fleet, ctx context.Context, rng *rand.Rand, writer, n int) error
	writes   string // how many members must hold a write
	settings string // further ones of the workers
	zombies  bool   // the third peer applies pushes that were given up
}

// The third peer's faults. A push that it applies too late, after newer ones, has a test of its own (TestNothingComesBack).
const (
	failing  = `[{"status":503,"probability":0.15},{"mode":"lose_answer","probability":0.1},{"mode":"slow","delay":"150ms","probability":0.2}]`
	drifting = `{"mode":"drift","probability":0.2}`
	late     = `{"mode":"slow","delay":"100ms","probability":0.3}`
	doubtful = `[{"mode":"zombie","delay":"1200ms","probability":0.02},{"mode":"lose_answer","probability":0.08}]`
	slow     = `[{"mode":"slow","delay":"1500ms","probability":0.5},{"status":503,"probability":0.2}]`
	refusing = `[{"mode":"refuse_id","id":"m-1"},{"mode":"refuse_id","id":"m-2"},{"status":400,"id":"m-3"}]`

	// Retries come late, so that fan-outs, which wait for the third peer because all must hold a write, bring it what it misses.
	retriesComeLate = `
		create function come_late() returns trigger language plpgsql as $$
		begin
			new.state := 'scheduled';
			new.scheduled_at := clock_timestamp() + interval '1 second';
			return new;
		end $$;
		create trigger come_late before insert on river_job for each row when (new.kind = 'peer_retry') execute function come_late()`
	retriesComeAsEver = `drop function if exists come_late cascade`

	// The third peer is brought the current state, again and again: what [jobs.SwitchToSnapshot] writes.
	resyncs = `
		do $$
		begin
			perform pg_advisory_xact_lock(1903521650, l) from generate_series(0, 31) l;
			insert into snapshots (peer, reason, phase, settled) values ('peer-3', 'asked', 'deletions', false) on conflict do nothing;
			if not found then
				return;
			end if;
			insert into lagging (peer, lane, cursor, pushed_to, not_before)
			select 'peer-3', l.lane, coalesce(case when b.verdict = 'pending' then b.number - 1 else b.number end, 0), coalesce(b.number, 0),
			       now() + interval '100 years'
			from generate_series(0, 31) l (lane)
			left join lateral (select b.number, b.verdict from batches b where b.lane = l.lane order by b.number desc limit 1) b on true
			on conflict (peer, lane) do update
			set cursor = excluded.cursor, pushed_to = excluded.pushed_to, not_before = excluded.not_before, holder = null, leased_until = null,
			    retry = null, failures = 0, last_class = '';
			delete from doubts where peer = 'peer-3';
			delete from repairs where peer = 'peer-3';
		end $$`

	refusalsAreDue = `update refusals set next_at = clock_timestamp() where next_at > clock_timestamp() + interval '1 second'`
)

// refusedInserts are faults that refuse some of the first memories that writers store ([fleet.inserts]) for as long as they last.
func refusedInserts() string {
	var faults []string
	for writer := range 3 {
		for n := range 5 {
			faults = append(faults, fmt.Sprintf(`{"mode":"refuse_id","id":"w%d-%d"}`, writer, 3*n))
		}
	}
	return "[" + strings.Join(faults, ",") + "]"
}

// arrangements are all, with every point of [fault.Points] in one of them.
func arrangements(t *testing.T) []arrangement {
	t.Helper()
	list := []arrangement{
		{
			name: "relay", most: 20, both: true,
			points: []fault.Point{fault.RelayChosen, fault.RelayMade, fault.RelayDispatched},
		},
		{
			name: "fan-out", most: 20,
			points: []fault.Point{
				fault.FanOutTaken, fault.FanOutLoaded, fault.FanOutPushed, fault.FanOutAcked, fault.FanOutRecording, fault.FanOutCompleting,
				fault.FanOutRecorded,
			},
		},
		{
			name: "stragglers", most: 3, faults: late, do: (*fleet).inserts,
			points: []fault.Point{fault.FanOutDecided, fault.FanOutPickedUp},
		},
		{
			name: "retries", most: 2, both: true, faults: failing,
			points: []fault.Point{
				fault.RetryClaiming, fault.RetryClaimed, fault.RetryAnnounced, fault.RetryAcked, fault.RetryRecording, fault.RetryRecorded,
				fault.RetryClaimedMore, fault.RetryFailed, fault.RetryReleasing, fault.RetryReleased,
			},
		},
		{
			name: "lanes that wait", most: 1, both: true, faults: drifting, do: (*fleet).moves, writes: "all", prepare: retriesComeLate,
			points: []fault.Point{fault.FanOutNoted, fault.WaitTaken, fault.BringTaken, fault.BringPushed, fault.BringRecorded},
		},
		{
			name: "long shipments", most: 2, faults: failing,
			points: []fault.Point{fault.ShipmentPart},
		},
		{
			name: "slow retries", most: 2, both: true, faults: slow, // one retry of the fleet at a time pushes a peer that is slow
			points: []fault.Point{fault.LeaseRenewed},
		},
		{
			name: "refused pushes", most: 2, faults: refusing,
			points: []fault.Point{fault.ShipmentHalved},
		},
		{
			name: "refusals", most: 2, faults: refusedInserts(), do: (*fleet).inserts, disturb: refusalsAreDue,
			points: []fault.Point{
				fault.RedeliverClaiming, fault.RedeliverClaimed, fault.RedeliverPushed, fault.RedeliverRecording,
				fault.RedeliverRecorded,
			},
		},
		{
			name: "sweeps", most: 2, both: true, faults: refusedInserts(), do: (*fleet).inserts, disturb: refusalsAreDue,
			points: []fault.Point{fault.SweepRefusal},
		},
		{
			name: "sweeps for repairs", most: 2, both: true, faults: doubtful, zombies: true,
			points: []fault.Point{fault.SweepDoubts, fault.SweepRepair},
		},
		{
			name: "repairs", most: 2, both: true, faults: doubtful, zombies: true, do: (*fleet).rewrites,
			points: []fault.Point{
				fault.RepairClaiming, fault.RepairClaimed, fault.RepairPushed, fault.RepairRecording,
				fault.RepairRecorded,
			},
		},
		{
			name: "snapshots", most: 2, both: true, zombies: true, disturb: resyncs,
			points: []fault.Point{
				fault.SnapshotClaimed, fault.SnapshotPushed, fault.SnapshotRecorded, fault.SnapshotComplete, fault.SnapshotEnded,
			},
		},
		{
			name: "pruning", most: 2, both: true, settings: "\nretention: {history: 1s}",
			points: []fault.Point{fault.PruneChosen, fault.PruneCommitted},
		},
		{
			name: "operator", faults: refusing, command: []string{"refusals", "retry", "--all"},
			points: []fault.Point{fault.OperateChosen, fault.OperateRecorded},
		},
		{
			name: "late jobs", most: 1, with: []string{string(fault.FanOutTaken) + "=sleep:1500ms"},
			points: []fault.Point{fault.FanOutReclaimed},
		},
		{
			name: "expired fan-outs", most: 1,
			others: []fault.Point{fault.FanOutTaken, fault.FanOutLoaded}, // later ones may die when all is decided
			points: []fault.Point{fault.SweepFanOut, fault.SweepRecorded},
		},
		{
			// In one lane: where others lag, too, their retries take the dead one's lane along before the sweeper gets to it.
			name: "expired retries", most: 1, faults: failing, do: (*fleet).insertsOfOneLane,
			others: []fault.Point{fault.RetryAnnounced, fault.RetryAcked, fault.RetryClaimed},
			points: []fault.Point{fault.SweepLagging},
		},
	}
	for _, p := range fault.Points() {
		if !slices.ContainsFunc(list, func(a arrangement) bool { return slices.Contains(a.points, p) }) {
			list = append(list, arrangement{name: "anything", most: 1, faults: failing, points: []fault.Point{p}})
		}
	}
	return list
}
