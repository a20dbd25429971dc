package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Bounds of the list's page.
const (
	defaultPage = 20
	maxPage     = 1000
)

func (p *Peer) handleHealth(w http.ResponseWriter, _ *http.Request) {
	b := appendField([]byte(`{"status":"ok"`), "service", "refpeer")
	b = appendField(b, "peer_id", p.cfg.ID)
	b = append(b, `,"version":"0.7.1","embedder_ready":false,"federation_enabled":true}`...)
	reply{status: http.StatusOK, body: b}.write(w)
}

// memoryByID reads one live memory, false if there is none.
func (p *Peer) memoryByID(ctx context.Context, id string) (memory, bool, error) {
	var raw string
	err := p.store.readers.QueryRowContext(ctx, `select payload from memories where id = ?`, id).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return memory{}, false, nil
	}
	if err != nil {
		return memory{}, false, fmt.Errorf("read memory: %w", err)
	}
	m, err := parseMemory(raw)
	if err != nil {
		return memory{}, false, fmt.Errorf("stored memory: %w", err)
	}
	return m, true, nil
}

// handleMemory answers one memory with its links.
func (p *Peer) handleMemory(w http.ResponseWriter, r *http.Request) {
	id, agent := r.PathValue("id"), r.Header.Get("X-Agent-Id")
	m, live, err := p.memoryByID(r.Context(), id)
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	if !live || !m.visibleTo(agent) {
		errorReply(http.StatusNotFound, "not found").write(w)
		return
	}
	links, err := p.visibleLinks(r.Context(), id, agent)
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, map[string]any{"memory": rawMemory(&m), "links": links})
}

// visibleTo tells whether a caller may see m. A memory without a scope is
// private; a private one is for its author.
func (m *memory) visibleTo(agent string) bool {
	if m.metadataScope.set && m.metadataScope.value != "private" {
		return true
	}
	return agent != "" && m.metadataAgent.set && m.metadataAgent.value == agent
}

// expired tells whether m is past its own expiry or its tier's lifetime.
func (m *memory) expired(now time.Time) bool {
	if m.expiresAt.set {
		at, err := time.Parse(time.RFC3339Nano, m.expiresAt.value)
		return err == nil && !at.After(now)
	}
	created, err := time.Parse(time.RFC3339Nano, m.createdAt)
	if err != nil {
		return false
	}
	switch m.tier {
	case tierShort:
		return !created.Add(6 * time.Hour).After(now)
	case tierMid:
		return !created.Add(7 * 24 * time.Hour).After(now)
	}
	return false
}

// handleList answers a page of memories: by title within one namespace, by id
// otherwise. As in the reference, what the caller may not see is left out after
// the page was cut, so a page may be short.
func (p *Peer) handleList(w http.ResponseWriter, r *http.Request) {
	limit, limitErr := pageNumber(r, "limit", defaultPage)
	offset, offsetErr := pageNumber(r, "offset", 0)
	if err := errors.Join(limitErr, offsetErr); err != nil {
		errorReply(http.StatusBadRequest, err.Error()).write(w)
		return
	}
	limit = min(limit, maxPage)
	var rows *sql.Rows
	var err error
	if ns := r.FormValue("namespace"); ns != "" {
		rows, err = p.store.readers.QueryContext(r.Context(),
			`select payload from memories where namespace = ? order by title limit ? offset ?`, ns, limit, offset)
	} else {
		rows, err = p.store.readers.QueryContext(r.Context(),
			`select payload from memories order by id limit ? offset ?`, limit, offset)
	}
	if err != nil {
		p.internalError(r.Context(), fmt.Errorf("list memories: %w", err)).write(w)
		return
	}
	b, count := []byte(`{"memories":[`), 0
	agent, now := r.Header.Get("X-Agent-Id"), time.Now()
	err = eachMemory(rows, func(m *memory) error {
		if m.visibleTo(agent) && !m.expired(now) {
			if count > 0 {
				b = append(b, ',')
			}
			b = m.appendJSON(b)
			count++
		}
		return nil
	})
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	b = append(b, ']')
	b = appendCount(b, "count", count)
	reply{status: http.StatusOK, body: append(b, '}')}.write(w)
}

func pageNumber(r *http.Request, name string, otherwise int) (int, error) {
	value := r.FormValue(name)
	if value == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s must be a number, 0 or more", name)
	}
	return n, nil
}

// eachMemory reads the payloads in rows and closes rows.
func eachMemory(rows *sql.Rows, visit func(*memory) error) error {
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var raw string
		if err := rows.Scan(&raw); err != nil {
			return fmt.Errorf("read memories: %w", err)
		}
		m, err := parseMemory(raw)
		if err != nil {
			return fmt.Errorf("stored memory: %w", err)
		}
		if err := visit(&m); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read memories: %w", err)
	}
	return nil
}

func (p *Peer) handleStats(w http.ResponseWriter, r *http.Request) {
	var total, namespaces int
	row := p.store.readers.QueryRowContext(r.Context(), `select count(*), count(distinct namespace) from memories`)
	if err := row.Scan(&total, &namespaces); err != nil {
		p.internalError(r.Context(), fmt.Errorf("count memories: %w", err)).write(w)
		return
	}
	b := appendCount([]byte(`{"status":"ok"`), "total_memories", total)
	b = appendCount(b, "namespaces", namespaces)
	reply{status: http.StatusOK, body: append(b, '}')}.write(w)
}

// Memories writes every memory to w, one JSON object a line, ordered by id:
// all fields, private and expired ones too. It sees one moment of the state.
func (p *Peer) Memories(ctx context.Context, w io.Writer) error {
	rows, err := p.store.readers.QueryContext(ctx, `select payload from memories order by id`)
	if err != nil {
		return fmt.Errorf("read memories: %w", err)
	}
	var line []byte
	return eachMemory(rows, func(m *memory) error {
		line = append(m.appendJSON(line[:0]), '\n')
		if _, err := w.Write(line); err != nil {
			return fmt.Errorf("write memories: %w", err)
		}
		return nil
	})
}
