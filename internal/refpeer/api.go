package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// defaultListPage is how many rows the lists of archived memories and of
// parked actions have if no limit is asked for.
const defaultListPage = 50

// listPage is the part of a list that a caller asked for.
type listPage struct{ limit, offset int }

// pageOf reads the parameters limit and offset, or answers 400.
func pageOf(w http.ResponseWriter, r *http.Request) (listPage, bool) {
	limit, limitErr := pageNumber(r, "limit", defaultListPage)
	offset, offsetErr := pageNumber(r, "offset", 0)
	if err := errors.Join(limitErr, offsetErr); err != nil {
		errorReply(http.StatusBadRequest, err.Error()).write(w)
		return listPage{}, false
	}
	return listPage{min(limit, maxPage), offset}, true
}

// visibleLinks reads the links of a memory whose ends the caller may see both.
func (p *Peer) visibleLinks(ctx context.Context, id, agent string) ([]Link, error) {
	all, err := readLinks(ctx, p.store.readers, `where source_id = ? or target_id = ? order by source_id, target_id, relation`, id, id)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, l := range all {
		for _, end := range [...]string{l.SourceID, l.TargetID} {
			if _, known := seen[end]; known {
				continue
			}
			m, live, err := p.memoryByID(ctx, end)
			if err != nil {
				return nil, err
			}
			seen[end] = live && m.visibleTo(agent)
		}
	}
	return slices.DeleteFunc(all, func(l Link) bool { return !seen[l.SourceID] || !seen[l.TargetID] }), nil
}

// handleLinks answers the links that a memory is an end of.
func (p *Peer) handleLinks(w http.ResponseWriter, r *http.Request) {
	links, err := p.visibleLinks(r.Context(), r.PathValue("id"), r.Header.Get("X-Agent-Id"))
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, map[string]any{"links": links, "count": len(links)})
}

// handleArchive answers archived memories by id.
func (p *Peer) handleArchive(w http.ResponseWriter, r *http.Request) {
	page, ok := pageOf(w, r)
	if !ok {
		return
	}
	archived, err := readArchived(r.Context(), p.store.readers, `order by id limit ? offset ?`, page.limit, page.offset)
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, map[string]any{"archived": archived, "count": len(archived)})
}

// handleArchiveStats counts the archived memories, together and by namespace.
func (p *Peer) handleArchiveStats(w http.ResponseWriter, r *http.Request) {
	type count struct {
		Namespace string `json:"namespace"`
		Count     int    `json:"count"`
	}
	counts, err := readAll(r.Context(), p.store.readers,
		`select namespace, count(*) from archived_memories group by namespace order by namespace`,
		func(rows *sql.Rows, c *count) error { return rows.Scan(&c.Namespace, &c.Count) })
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	total := 0
	for _, c := range counts {
		total += c.Count
	}
	p.writeValue(w, r, map[string]any{"archived_total": total, "by_namespace": counts})
}

// handlePending answers parked actions, and decided ones, by id.
func (p *Peer) handlePending(w http.ResponseWriter, r *http.Request) {
	page, ok := pageOf(w, r)
	if !ok {
		return
	}
	namespace, status := r.FormValue("namespace"), r.FormValue("status")
	pendings, err := readPendings(r.Context(), p.store.readers,
		`where (? = '' or namespace = ?) and (? = '' or status = ?) order by id limit ? offset ?`,
		namespace, namespace, status, status, page.limit, page.offset)
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, map[string]any{"pending": pendings, "count": len(pendings)})
}

// handleNamespaces answers the standards of all namespaces, or of one. With
// inherit=true, chain holds those of its parents too, the nearest first.
func (p *Peer) handleNamespaces(w http.ResponseWriter, r *http.Request) {
	namespace := r.FormValue("namespace")
	if namespace == "" {
		all, err := readNamespaceMeta(r.Context(), p.store.readers, `order by namespace`)
		if err != nil {
			p.internalError(r.Context(), err).write(w)
			return
		}
		p.writeValue(w, r, map[string]any{"namespaces": all, "count": len(all)})
		return
	}
	p.writeStandard(w, r, namespace)
}

// handleStandard answers /namespaces/{namespace}/standard; a namespace may
// have slashes.
func (p *Peer) handleStandard(w http.ResponseWriter, r *http.Request) {
	namespace, ok := strings.CutSuffix(r.PathValue("path"), "/standard")
	if !ok {
		errorReply(http.StatusNotFound, "not found").write(w)
		return
	}
	p.writeStandard(w, r, namespace)
}

func (p *Peer) writeStandard(w http.ResponseWriter, r *http.Request, namespace string) {
	inherit := r.FormValue("inherit") == "true"
	chain := []NamespaceMeta{}
	visited := map[string]bool{} // parents may run in a circle
	for next := namespace; next != "" && !visited[next]; {
		visited[next] = true
		rows, err := readNamespaceMeta(r.Context(), p.store.readers, `where namespace = ?`, next)
		if err != nil {
			p.internalError(r.Context(), err).write(w)
			return
		}
		next = ""
		for _, row := range rows {
			chain = append(chain, row)
			if inherit && row.ParentNamespace != nil {
				next = *row.ParentNamespace
			}
		}
	}
	if len(chain) == 0 {
		errorReply(http.StatusNotFound, "the namespace has no standard").write(w)
		return
	}
	standard, live, err := p.memoryByID(r.Context(), chain[0].StandardID)
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	out := map[string]any{
		"namespace": namespace, "standard_id": chain[0].StandardID, "parent_namespace": chain[0].ParentNamespace,
		"updated_at": chain[0].UpdatedAt,
	}
	if live && standard.visibleTo(r.Header.Get("X-Agent-Id")) {
		out["standard"] = rawMemory(&standard)
	}
	if inherit {
		out["chain"] = chain
	}
	p.writeValue(w, r, out)
}

// handleMetrics answers the counters in the text form of Prometheus.
func (p *Peer) handleMetrics(w http.ResponseWriter, r *http.Request) {
	c := p.Counters()
	var memories int
	row := p.store.readers.QueryRowContext(r.Context(), `select count(*) from memories`)
	if err := row.Scan(&memories); err != nil {
		p.internalError(r.Context(), fmt.Errorf("count memories: %w", err)).write(w)
		return
	}
	var b strings.Builder
	writeMetric(&b, "refpeer_pushes_total", "counter", "Pushes answered, by status.", "status", c.Pushes)
	writeMetric(&b, "refpeer_items_total", "counter", "Items of applied pushes, by result.", "result", c.Results)
	writeMetric(&b, "refpeer_refusals_total", "counter", "Refused requests and credentials, by tag.", "tag", c.Tags)
	writeMetric(&b, "refpeer_faults_total", "counter", "Faults that fired, by mode.", "mode", c.Faults)
	writeMetric(&b, "refpeer_duplicate_keys_total", "counter", "Applied pushes with a known Idempotency-Key.", "",
		map[string]int64{"": c.DuplicateKeys})
	writeMetric(&b, "refpeer_to_reembed_total", "counter", "Embeddings that did not fit.", "", map[string]int64{"": c.Reembed})
	writeMetric(&b, "refpeer_memories", "gauge", "Live memories.", "", map[string]int64{"": int64(memories)})
	reply{
		status: http.StatusOK, body: []byte(b.String()),
		header: http.Header{"Content-Type": {"text/plain; version=0.0.4; charset=utf-8"}},
	}.write(w)
}
