package jobs

import "time"

// PruneLock is the advisory lock of the one pruner that works.
const PruneLock = pruneLock

// TendAtOnce makes the pruner's next look one that looks after everything.
func TendAtOnce(p *Pruner) { p.tended = time.Time{} }
