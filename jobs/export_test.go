package jobs

import "time"

// TendAtOnce makes the pruner's next look one that looks after everything.
func TendAtOnce(p *Pruner) { p.tended = time.Time{} }
