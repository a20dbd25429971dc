package jobs

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
)

const (
	// stuckJob is how long after its timeout River still hopes that a job ends (Config.JobStuckThreshold's default). All workers of a queue may be taken
	// for that long, and then River does not look for more.
	stuckJob = 10 * time.Second

	// queueLook is how often River looks at the row of a queue beside its notifications, a minute, and the ten seconds that it waits for the answer. Of a
	// queue that is paused nothing else is seen, and a pause itself is seen that late.
	queueLook = 70 * time.Second
)

// watchedDriver is River's driver for pgx, and tells of River's looks for jobs. River has no hook that does: the one for metrics is called for looks that
// succeeded only, and a database that is away is no fault of the loop.
type watchedDriver struct {
	*riverpgxv5.Driver

	watch *queueWatch
}

func newWatchedDriver(pool *pgxpool.Pool, cfg Config) *watchedDriver {
	return &watchedDriver{Driver: riverpgxv5.New(pool), watch: &queueWatch{
		turned: cfg.QueueTurned, within: max(cfg.JobTimeout+stuckJob, queueLook), paused: map[string]bool{},
	}}
}

// GetExecutor returns what River's producers ask the database through.
func (d *watchedDriver) GetExecutor() riverdriver.Executor {
	if d.watch.turned == nil {
		return d.Driver.GetExecutor()
	}
	return watchedExecutor{d.Driver.GetExecutor(), d.watch}
}

// queueWatch knows which queues are paused: of those River looks at the row only.
type queueWatch struct {
	turned func(queue string, within time.Duration)
	within time.Duration

	mu     sync.Mutex // not held while turned is called
	paused map[string]bool
}

// seen notes a look at the row of a queue. While the queue is paused that is a turn, even if the look failed.
func (w *queueWatch) seen(queue string, row *rivertype.Queue) {
	w.mu.Lock()
	if row != nil {
		w.paused[queue] = row.PausedAt != nil
	}
	paused := w.paused[queue]
	w.mu.Unlock()
	if paused {
		w.turned(queue, w.within)
	}
}

// watchedExecutor tells of what River's producers do in each turn.
type watchedExecutor struct {
	riverdriver.Executor

	watch *queueWatch
}

// JobGetAvailable is the look for jobs.
func (e watchedExecutor) JobGetAvailable(ctx context.Context, params *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	result, err := e.Executor.JobGetAvailable(ctx, params)
	e.watch.turned(params.Queue, e.watch.within)
	return result, err
}

// QueueCreateOrSetUpdatedAt is called when a producer starts, and now and then.
func (e watchedExecutor) QueueCreateOrSetUpdatedAt(ctx context.Context, params *riverdriver.QueueCreateOrSetUpdatedAtParams) (*rivertype.Queue, error) {
	row, err := e.Executor.QueueCreateOrSetUpdatedAt(ctx, params)
	e.watch.seen(params.Name, row)
	return row, err
}

// QueueGet is the look whether a queue was paused or resumed. The job pages look through it, too, so that a paused queue seems to turn while somebody looks
// at its page.
func (e watchedExecutor) QueueGet(ctx context.Context, params *riverdriver.QueueGetParams) (*rivertype.Queue, error) {
	row, err := e.Executor.QueueGet(ctx, params)
	e.watch.seen(params.Name, row)
	return row, err
}
