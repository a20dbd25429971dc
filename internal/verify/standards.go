package verify

import (
	"context"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// compareStandard compares the standard of a namespace.
func (r *run) compareStandard(ctx context.Context, namespace string) error {
	m := &standards{run: r}
	seen := []suspect{{Key: namespace, Namespace: namespace}}
	if _, err := m.state(ctx, seen); err != nil {
		return err
	}
	differences, err := m.look(ctx, seen)
	if err != nil {
		if refused(err) {
			r.note("the peer does not tell the standards of namespaces: they are not compared")
			return nil
		}
		return err
	}
	if differences[namespace] == nil {
		return nil
	}
	return r.settle(ctx, m, seen, r.found(ctx, ofStandards))
}

// standardRow is what the store knows of a namespace's standard.
type standardRow struct {
	Namespace  string
	StandardID string // empty: none
	Parent     string
	Lane       int16
	Repairing  bool
	Stamp      string
}

// standards is the matter of namespace standards.
type standards struct {
	*run
	rows map[string]standardRow
}

func (m *standards) state(ctx context.Context, suspects []suspect) (map[string]known, error) {
	keys, _ := keysOf(suspects)
	list, err := collect(ctx, m.store.conn, pgx.RowToStructByPos[standardRow], "read standards", `
		select k.namespace, coalesce(n.standard_id, ''), coalesce(n.parent_namespace, ''), outbox_lane(k.namespace),
		       exists (select from repairs r where r.peer = $2 and r.subject = 'namespace' and r.key = k.namespace`+notOurs+`)
		       or exists (select from repairs r where r.peer = $2 and r.subject = 'memory' and r.key = n.standard_id`+notOurs+`),
		       coalesce(to_jsonb(n)::text, '')
		from unnest($1::text[]) k (namespace)
		left join namespace_meta n on n.namespace = k.namespace`, keys, m.store.peer)
	if err != nil {
		return nil, err
	}
	m.rows = make(map[string]standardRow, len(list))
	states := make(map[string]known, len(list))
	for _, n := range list {
		m.rows[n.Namespace] = n
		states[n.Namespace] = known{Stamp: n.Stamp, Lane: n.Lane, Repairing: n.Repairing}
	}
	return states, nil
}

func (m *standards) look(ctx context.Context, suspects []suspect) (map[string][]Difference, error) {
	differences := make(map[string][]Difference, len(suspects))
	for _, s := range suspects {
		theirs, err := ask(ctx, &m.peer, func(ctx context.Context) (peer.Standard, error) {
			return m.peer.reader.Standard(ctx, s.Key, m.options.AsAgent)
		})
		if err != nil {
			return nil, err
		}
		differences[s.Key] = differentStandard(m.rows[s.Key], theirs)
	}
	return differences, nil
}

func differentStandard(ours standardRow, theirs peer.Standard) []Difference {
	d := Difference{Kind: KindStandard, Key: ours.Namespace, Namespace: ours.Namespace}
	switch {
	case ours.StandardID == "" && theirs.StandardID == "":
		return nil
	case ours.StandardID == "":
		d.Kind = KindStandardExtra
	case theirs.StandardID == "":
		d.Fields = []string{"standard_id"}
	default:
		if ours.StandardID != theirs.StandardID {
			d.Fields = append(d.Fields, "standard_id")
		}
		if ours.Parent != "" && ours.Parent != theirs.ParentNamespace { // without one receivers guess
			d.Fields = append(d.Fields, "parent_namespace")
		}
		if d.Fields == nil {
			return nil
		}
	}
	return []Difference{d}
}
