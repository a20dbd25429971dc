package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// The names of the quotas in answers.
const (
	quotaMemoriesName = "memories_per_day"
	quotaBytesName    = "storage_bytes_per_day"
	quotaLinksName    = "links_per_day"
)

// limits are what an author may send into one namespace a UTC day; 0: as much
// as it likes.
type limits struct{ memories, bytes, links int }

// usage is what was counted against [limits], or what is to be.
type usage struct{ memories, bytes, links int }

// quotaRefusal is the answer to a push that met the end of a quota. Memories
// before it stay applied; everything after it is left alone.
type quotaRefusal struct {
	limit   string
	agentID string
	current int
	max     int
	applied int
	refused int
	resetAt time.Time
}

// chargeMemory counts one memory against the quotas, or says that one is used
// up. Every accepted memory costs, repeated ones too.
func (s *store) chargeMemory(ctx context.Context, p *push, m *memory, limit limits) (*quotaRefusal, error) {
	if p.budget != nil && p.budget.left.Load() <= 0 {
		return p.budget.refusal(m.author(p.msg.sender), time.Now().UTC()), nil
	}
	if limit == (limits{}) {
		return nil, nil
	}
	return s.charge(ctx, m.author(p.msg.sender), m.namespace, usage{memories: 1, bytes: len(m.raw)}, limit)
}

// charge counts more against (author, namespace) for the UTC day, or says
// which limit leaves no room for it.
func (s *store) charge(ctx context.Context, author, namespace string, more usage, limit limits) (*quotaRefusal, error) {
	now := time.Now().UTC()
	day := now.Format(time.DateOnly)
	var used usage
	err := s.stmts.quotaUsed.QueryRowContext(ctx, day, author, namespace).Scan(&used.memories, &used.bytes, &used.links)
	first := errors.Is(err, sql.ErrNoRows)
	if err != nil && !first {
		return nil, fmt.Errorf("read quota: %w", err)
	}
	for _, q := range [...]struct {
		name              string
		used, more, limit int
	}{
		{quotaMemoriesName, used.memories, more.memories, limit.memories},
		{quotaBytesName, used.bytes, more.bytes, limit.bytes},
		{quotaLinksName, used.links, more.links, limit.links},
	} {
		if q.limit > 0 && q.used+q.more > q.limit {
			refusal := newQuotaRefusal(author, q.used, q.limit, now)
			refusal.limit = q.name
			return refusal, nil
		}
	}
	if first {
		if _, err := s.stmts.forgetQuota.ExecContext(ctx, day); err != nil {
			return nil, fmt.Errorf("forget old quota: %w", err)
		}
	}
	_, err = s.stmts.setQuota.ExecContext(ctx, day, author, namespace, used.memories+more.memories, used.bytes+more.bytes,
		used.links+more.links)
	if err != nil {
		return nil, fmt.Errorf("charge quota: %w", err)
	}
	return nil, nil
}

func newQuotaRefusal(agentID string, current, limit int, now time.Time) *quotaRefusal {
	midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, time.UTC)
	return &quotaRefusal{limit: quotaMemoriesName, agentID: agentID, current: current, max: limit, resetAt: midnight}
}

// reply is the answer 429. There is no Retry-After.
func (q *quotaRefusal) reply() reply {
	resetAt := q.resetAt.Format(time.RFC3339)
	b := appendField([]byte(`{"error":"QUOTA_EXCEEDED"`), "limit", q.limit)
	b = appendCount(b, "current", q.current)
	b = appendCount(b, "max", q.max)
	b = appendField(b, "agent_id", q.agentID)
	b = appendCount(b, "applied_before_refusal", q.applied)
	b = appendCount(b, "quota_refused", q.refused)
	b = appendField(b, "reset_at", resetAt)
	return reply{
		status: http.StatusTooManyRequests,
		body:   append(b, '}'),
		header: http.Header{"X-Quota-Reset-At": {resetAt}, "X-Quota-Limit": {q.limit}},
	}
}
