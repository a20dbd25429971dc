package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// quotaLimitName is the only quota this receiver has.
const quotaLimitName = "memories_per_day"

// quotaRefusal is the answer to a push that met the end of a quota. Memories
// before it stay applied; everything after it is left alone.
type quotaRefusal struct {
	agentID string
	current int
	max     int
	applied int
	refused int
	resetAt time.Time
}

// chargeQuota counts one memory against (author, namespace) for the UTC day,
// or says that nothing is left. Every accepted memory costs, repeated ones too.
func (s *store) chargeQuota(ctx context.Context, author, namespace string, perDay int) (*quotaRefusal, error) {
	now := time.Now().UTC()
	day := now.Format(time.DateOnly)
	var used int
	err := s.stmts.quotaUsed.QueryRowContext(ctx, day, author, namespace).Scan(&used)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read quota: %w", err)
	}
	if used >= perDay {
		return newQuotaRefusal(author, used, perDay, now), nil
	}
	if used == 0 {
		if _, err := s.stmts.forgetQuota.ExecContext(ctx, day); err != nil {
			return nil, fmt.Errorf("forget old quota: %w", err)
		}
	}
	if _, err := s.stmts.setQuota.ExecContext(ctx, day, author, namespace, used+1); err != nil {
		return nil, fmt.Errorf("charge quota: %w", err)
	}
	return nil, nil
}

func newQuotaRefusal(agentID string, current, limit int, now time.Time) *quotaRefusal {
	midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, time.UTC)
	return &quotaRefusal{agentID: agentID, current: current, max: limit, resetAt: midnight}
}

// reply is the answer 429. There is no Retry-After.
func (q *quotaRefusal) reply() reply {
	resetAt := q.resetAt.Format(time.RFC3339)
	b := appendField([]byte(`{"error":"QUOTA_EXCEEDED"`), "limit", quotaLimitName)
	b = appendCount(b, "current", q.current)
	b = appendCount(b, "max", q.max)
	b = appendField(b, "agent_id", q.agentID)
	b = appendCount(b, "applied_before_refusal", q.applied)
	b = appendCount(b, "quota_refused", q.refused)
	b = appendField(b, "reset_at", resetAt)
	return reply{
		status: http.StatusTooManyRequests,
		body:   append(b, '}'),
		header: http.Header{"X-Quota-Reset-At": {resetAt}, "X-Quota-Limit": {quotaLimitName}},
	}
}
