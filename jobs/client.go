package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/health"
	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
	"quorumbox/internal/span"
	"quorumbox/quorum"
)

// Config is what the jobs need to know. Fields without a default must be set.
type Config struct {
	SenderID string        // sender_agent_id of each push
	Peers    []string      // ids of all configured peers, each once
	Policy   quorum.Policy // N must be 1 + len(Peers)
	Rules    quorum.Rules  // by namespace, in place of Policy and AckTimeout where one matches. Defaults to none

	// PushURLs are where the peers are pushed, for logs. Defaults to the peers' ids.
	PushURLs map[string]string

	FanOut    Pusher // pushes to a peer in step: with the one retry inside the ack timeout
	RetryPush Pusher // pushes to a lagging peer: one attempt

	AckTimeout  time.Duration // deadline of a fan-out of namespaces without a rule. Defaults to 2s
	Grace       time.Duration // wait for stragglers once the verdict is known. Defaults to 2ms
	Lease       time.Duration // of a dispatched batch; see [outbox.RelayConfig]. Defaults to the longest ack timeout + 1.5s
	PushTimeout time.Duration // of one push to a lagging peer. Defaults to 5s, or half of a short JobTimeout
	RetryBudget time.Duration // after which a retry that goes well makes room for others. Defaults to 2s, or a quarter of a short JobTimeout
	Retry       Schedule
	Zombie      time.Duration // how long a push may still be applied by a peer after it was given up. Defaults to 90s
	Redeliver   Schedule      // of an entry that a peer refuses. Defaults to 1m to 1h

	MaxItems int // entries in one push. Defaults to 1000
	MaxBytes int // bytes in one push. Defaults to 1.5 MiB

	FanOutWorkers int // fan-outs at a time in this process. Defaults to 16
	RetryWorkers  int // retries at a time and peer in this process. Defaults to 4

	// CatchupRates bounds, by peer, how many entries a second the retries and snapshots of this process push. A peer without one, or with 0, is not bounded.
	CatchupRates map[string]int

	JobTimeout         time.Duration // Defaults to 8s; must exceed AckTimeout and PushTimeout + RetryBudget
	RescueAfter        time.Duration // Defaults to 30s; must exceed JobTimeout by River's margin and twice the clocks' skew
	CompletedRetention time.Duration // Defaults to 10m
	SoftStop           time.Duration // Defaults to 10s

	SweepTurned health.Turned // called with each sweep. Nil: nobody is told
	// QueueTurned is called, by name of the queue, each time that River has looked for jobs of a queue, or has seen that it is paused; within is how long River may
	// go on without a look because its workers are busy. Nil: nobody is told. Safe for concurrent use.
	QueueTurned func(queue string, within time.Duration)

	Logger  *slog.Logger     // defaults to discarding
	Metrics *metrics.Metrics // nil counts nothing
	Tracer  trace.Tracer     // begins spans, in the traces of the entries' writers. Nil begins none, and reads no trace contexts

	limits  limits
	paces   map[string]*pace // by peer
	partial *sometimes       // says that peers miss what a quorum has
	traced  bool             // there is a tracer
}

// DefaultZombie is how long a push may still be applied after it was given up: the time until the kernel stops sending it (TCP_USER_TIMEOUT), the peer's own limit of 60 s
// for a request, and a margin.
const DefaultZombie = 90 * time.Second

func (c Config) withDefaults() Config {
	duration := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	duration(&c.AckTimeout, 2*time.Second)
	duration(&c.Grace, 2*time.Millisecond)
	duration(&c.Lease, c.longestAck()+1500*time.Millisecond)
	duration(&c.Zombie, DefaultZombie)
	duration(&c.JobTimeout, 8*time.Second)
	duration(&c.PushTimeout, min(5*time.Second, c.JobTimeout/2))
	duration(&c.RetryBudget, min(2*time.Second, c.JobTimeout/4))
	duration(&c.RescueAfter, 30*time.Second)
	duration(&c.CompletedRetention, 10*time.Minute)
	duration(&c.SoftStop, 10*time.Second)
	count := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	count(&c.MaxItems, 1000)
	count(&c.MaxBytes, 3<<19)
	count(&c.FanOutWorkers, 16)
	count(&c.RetryWorkers, 4)
	c.Retry = c.Retry.withDefaults()
	if c.Redeliver.Initial <= 0 {
		c.Redeliver = Schedule{Initial: time.Minute, Max: time.Hour}
	}
	c.Redeliver = c.Redeliver.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.traced = c.Tracer != nil; !c.traced {
		c.Tracer = span.None()
	}
	c.limits = limits{items: c.MaxItems, bytes: c.MaxBytes}
	c.partial = newSometimes()
	c.paces = map[string]*pace{}
	for _, p := range c.Peers {
		c.paces[p] = newPace(c.CatchupRates[p])
	}
	return c
}

// bounded pushes with RetryPush, each push within the push timeout.
func (c Config) bounded() Pusher {
	return PushFunc(func(ctx context.Context, peerID string, req peer.Request) (peer.Report, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, c.PushTimeout, errPushTimeout)
		defer cancel()
		return c.RetryPush.Push(ctx, peerID, req)
	})
}

// longestAck is the longest deadline of a fan-out.
func (c Config) longestAck() time.Duration { return max(c.AckTimeout, c.Rules.MaxAckTimeout()) }

// judge returns how the writes of a namespace are judged.
func (c Config) judge(namespace string) (quorum.Policy, time.Duration, error) {
	i := c.Rules.Match(namespace)
	if i == 0 {
		return c.Policy, c.AckTimeout, nil
	}
	rule := c.Rules.Rule(i)
	policy, err := rule.Writes.Policy(1 + len(c.Peers))
	return policy, rule.AckTimeout, err
}

const (
	// fetchCooldown bounds how often a queue asks for jobs. River's default of 100 ms would also delay the notification of the second of
	// two inserts.
	fetchCooldown = time.Millisecond
	// fanOutPoll and peerPoll are how soon a job is found when its notification is lost.
	fanOutPoll = 250 * time.Millisecond
	peerPoll   = time.Second
)

// NewClient returns a River client that works the fan-outs and the retries of all configured peers once it is started. The caller starts
// and stops it. It touches neither pool nor peers before that.
func NewClient(pool *pgxpool.Pool, cfg Config) (*river.Client[pgx.Tx], error) {
	cfg = cfg.withDefaults()
	if cfg.Policy.N != 1+len(cfg.Peers) {
		return nil, fmt.Errorf("jobs: policy %s does not fit %d peers", cfg.Policy, len(cfg.Peers))
	}
	if cfg.PushTimeout+cfg.RetryBudget >= cfg.JobTimeout || cfg.longestAck() >= cfg.JobTimeout {
		return nil, fmt.Errorf("jobs: the job timeout %s must exceed the ack timeout %s, and push timeout %s and retry budget %s together",
			cfg.JobTimeout, cfg.longestAck(), cfg.PushTimeout, cfg.RetryBudget)
	}
	if cfg.FanOut == nil || cfg.RetryPush == nil {
		return nil, errors.New("jobs: both pushers must be set")
	}
	s := newStore(pool, cfg)
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &fanOutWorker{cfg: cfg, store: s}); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if err := river.AddWorkerSafely(workers, &peerRetryWorker{cfg: cfg, store: s}); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if err := river.AddWorkerSafely(workers, &redeliverWorker{cfg: cfg, store: s}); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if err := river.AddWorkerSafely(workers, &repairWorker{cfg: cfg, store: s}); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if err := river.AddWorkerSafely(workers, &snapshotWorker{cfg: cfg, store: s}); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	queues := map[string]river.QueueConfig{
		FanOutQueue: {MaxWorkers: cfg.FanOutWorkers, FetchPollInterval: fanOutPoll},
	}
	for _, p := range cfg.Peers {
		queues[PeerQueue(p)] = river.QueueConfig{MaxWorkers: cfg.RetryWorkers, FetchPollInterval: peerPoll}
	}
	client, err := river.NewClient(newWatchedDriver(pool, cfg), &river.Config{
		Queues:                      queues,
		Workers:                     workers,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           peerPoll,
		JobTimeout:                  cfg.JobTimeout,
		RescueStuckJobsAfter:        cfg.RescueAfter,
		CompletedJobRetentionPeriod: cfg.CompletedRetention,
		DiscardedJobRetentionPeriod: -1, // for ever: a discarded job is a fault that somebody should see
		SoftStopTimeout:             cfg.SoftStop,
		Logger:                      cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return client, nil
}

// Enqueuer hands fan-outs over to River. It implements outbox.Enqueuer.
type Enqueuer struct {
	Client *river.Client[pgx.Tx]
}

// EnqueueFanOut inserts the fan-out's job in tx. If ctx carries a span, the job's metadata names it.
func (e Enqueuer) EnqueueFanOut(ctx context.Context, tx pgx.Tx, fanOut int64) error {
	if _, err := e.Client.InsertTx(ctx, tx, FanOutArgs{FanOut: fanOut}, traceOpts(ctx)); err != nil {
		return fmt.Errorf("insert fan-out: %w", err)
	}
	return nil
}
