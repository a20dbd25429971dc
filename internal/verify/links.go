package verify

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// sourcesAtOnce is how many memories' links are in this process's memory.
const sourcesAtOnce = 100

// compareLinks compares the links of the memories that the options choose, by their sources.
func (r *run) compareLinks(ctx context.Context) error {
	if r.options.Links == LinksNone {
		return nil
	}
	next := `select distinct l.source_id from memory_links l where l.source_id > $1`
	if r.options.Links == LinksAll {
		next = `select m.id as source_id from memories m where m.id > $1`
	}
	var done int64
	var suspects []suspect
	for after := ""; ; {
		sources, err := collect(ctx, r.store.conn, pgx.RowTo[string], "list linked memories", next+` order by source_id limit $2`, after, sourcesAtOnce)
		if err != nil {
			return err
		}
		if len(sources) == 0 {
			return r.settle(ctx, &links{run: r}, suspects, r.found(ctx, ofLinks))
		}
		after = sources[len(sources)-1]
		seen := make([]suspect, 0, len(sources))
		for _, id := range sources {
			seen = append(seen, suspect{Key: id})
		}
		m := &links{run: r}
		if _, err := m.state(ctx, seen); err != nil {
			return err
		}
		seen = slices.DeleteFunc(seen, func(s suspect) bool {
			return len(r.options.Namespaces) > 0 && !slices.Contains(r.options.Namespaces, m.rows[s.Key].Namespace)
		})
		differences, err := m.look(ctx, seen)
		if err != nil {
			return err
		}
		done += int64(len(sources))
		r.progress("links", done, 0)
		for _, s := range seen {
			if differences[s.Key] != nil {
				suspects = append(suspects, s)
			}
		}
		if len(suspects) >= settleAtOnce {
			if err := r.settle(ctx, &links{run: r}, suspects, r.found(ctx, ofLinks)); err != nil {
				return err
			}
			suspects = nil
		}
	}
}

// links is the matter of the links that go out of memories.
type links struct {
	*run
	rows map[string]sourceRow
	ours map[string][]linkRow // by source
}

// sourceRow is what the store knows of a memory with links.
type sourceRow struct {
	ID        string
	Live      bool
	Namespace string
	Agent     string
	Private   bool
	Lane      int16
	Repairing bool
	Stamp     string
}

// linkRow is a link of the store, with who may see its target.
type linkRow struct {
	Source, Target, Relation string
	Agent                    string
	Private                  bool
	Expired                  bool
}

func (m *links) state(ctx context.Context, suspects []suspect) (map[string]known, error) {
	ids, _ := keysOf(suspects)
	list, err := collect(ctx, m.store.conn, pgx.RowToStructByPos[sourceRow], "read linked memories", `
		select i.id, m.id is not null and not `+expired+`, coalesce(m.namespace, ''), coalesce(m.metadata ->> 'agent_id', ''),
		       coalesce(m.metadata ->> 'scope', 'private') = 'private', coalesce(outbox_lane(m.namespace), t.lane, 0),
		       exists (
				select from repairs r
				where r.peer = $2 and r.subject = 'memory'
				  and (r.key = i.id or r.key in (select l.target_id from memory_links l where l.source_id = i.id))`+notOurs+`),
		       jsonb_build_array(m.namespace, md5(m.title), m.updated_at, m.version, t.entry,
				(select jsonb_agg(jsonb_build_array(l.target_id, l.relation) order by l.target_id, l.relation)
				 from memory_links l where l.source_id = i.id))::text
		from unnest($1::text[]) i (id)
		left join memories m on m.id = i.id
		left join tombstones t on t.id = i.id`, ids, m.store.peer)
	if err != nil {
		return nil, err
	}
	ours, err := collect(ctx, m.store.conn, pgx.RowToStructByPos[linkRow], "read links", `
		select l.source_id, l.target_id, l.relation, coalesce(m.metadata ->> 'agent_id', ''), coalesce(m.metadata ->> 'scope', 'private') = 'private', `+expired+`
		from memory_links l
		join memories m on m.id = l.target_id
		where l.source_id = any ($1)`, ids)
	if err != nil {
		return nil, err
	}
	m.rows, m.ours = make(map[string]sourceRow, len(list)), map[string][]linkRow{}
	states := make(map[string]known, len(list))
	for _, s := range list {
		m.rows[s.ID] = s
		states[s.ID] = known{Stamp: s.Stamp, Lane: s.Lane, Repairing: s.Repairing}
	}
	for _, l := range ours {
		m.ours[l.Source] = append(m.ours[l.Source], l)
	}
	return states, nil
}

func (m *links) look(ctx context.Context, suspects []suspect) (map[string][]Difference, error) {
	differences := make(map[string][]Difference, len(suspects))
	for _, s := range suspects {
		source := m.rows[s.Key]
		if !source.Live || !isID(s.Key) {
			continue
		}
		theirs := map[peer.StoredLink]bool{}
		for _, agent := range m.callers(source) {
			list, err := ask(ctx, &m.peer, func(ctx context.Context) ([]peer.StoredLink, error) {
				return m.peer.reader.Links(ctx, s.Key, agent)
			})
			if err != nil {
				return nil, err
			}
			for _, l := range list {
				if l.SourceID == s.Key {
					theirs[l] = true
				}
			}
		}
		differences[s.Key] = m.compare(source, theirs)
	}
	return differences, nil
}

// callers are the agents of whom at least one sees each link of a memory, as far as there is one who sees both its ends.
func (m *links) callers(source sourceRow) []string {
	if source.Private {
		if isAgent(source.Agent) {
			return []string{source.Agent}
		}
		return nil
	}
	agents := []string{m.options.AsAgent}
	for _, l := range m.ours[source.ID] {
		if l.Private && isAgent(l.Agent) {
			agents = append(agents, l.Agent)
		}
	}
	slices.Sort(agents)
	return slices.Compact(agents)
}

// compare compares the links of one memory.
func (m *links) compare(source sourceRow, theirs map[peer.StoredLink]bool) []Difference {
	var list []Difference
	differ := func(kind Kind, l peer.StoredLink) {
		list = append(list, Difference{Kind: kind, Key: source.ID, Namespace: source.Namespace, Fields: []string{l.Relation, l.TargetID}})
	}
	for _, l := range m.ours[source.ID] {
		link := peer.StoredLink{SourceID: l.Source, TargetID: l.Target, Relation: l.Relation}
		if !theirs[link] && !l.Expired && visible(source, l) {
			differ(KindLinkMissing, link)
		}
		delete(theirs, link)
	}
	for l := range theirs {
		if isID(l.TargetID) && isRelation(l.Relation) {
			differ(KindLinkExtra, l)
		}
	}
	slices.SortFunc(list, func(a, b Difference) int { return slices.Compare(a.Fields, b.Fields) })
	return list
}

// visible reports whether some agent sees both ends of a link.
func visible(source sourceRow, l linkRow) bool {
	switch {
	case source.Private && !isAgent(source.Agent), l.Private && !isAgent(l.Agent):
		return false
	default:
		return !source.Private || !l.Private || source.Agent == l.Agent
	}
}

// isRelation reports whether a text can be the relation of a link.
func isRelation(s string) bool {
	return slices.Contains([]string{"related_to", "supersedes", "contradicts", "derived_from", "reflects_on", "derives_from"}, s)
}
