package refpeer

import (
	"context"
	"fmt"
	"strings"
)

// namespaceMeta is one element of the list namespace_meta: which memory is the
// standard of a namespace.
type namespaceMeta struct {
	namespace, standard string
	parent              text
	updatedAt           string
}

func (s *scanner) namespaceMeta() namespaceMeta {
	var n namespaceMeta
	s.element("namespace meta", []string{"namespace", "standard_id"}, func(key string) bool {
		switch key {
		case "namespace":
			n.namespace = s.str()
		case "standard_id":
			n.standard = s.str()
		case "parent_namespace":
			n.parent = s.text0()
		case "updated_at":
			n.updatedAt = s.str()
		default:
			return false
		}
		return true
	})
	return n
}

// namespaceMetaList applies the list namespace_meta: the standard must be
// live; the last arrival wins, whatever its time.
func namespaceMetaList() listStep[namespaceMeta] {
	return listStep[namespaceMeta]{
		list:  listNamespaceMeta,
		items: func(m *message) []namespaceMeta { return m.namespaceMeta },
		describe: func(n *namespaceMeta) logItem {
			return logItem{op: OpNamespaceSet, id: n.standard, namespace: n.namespace, updatedAt: n.updatedAt}
		},
		apply: func(ctx context.Context, s *store, _ *push, n *namespaceMeta, item *logItem) error {
			return s.setStandard(ctx, n, item)
		},
	}
}

func (s *store) setStandard(ctx context.Context, n *namespaceMeta, item *logItem) error {
	if !validNamespace(n.namespace) || !validID(n.standard) || n.parent.set && !validNamespace(n.parent.value) {
		item.skip("invalid")
		return nil
	}
	_, live, err := s.liveIn(ctx, n.standard)
	if err != nil {
		return err
	}
	if !live {
		item.skip("no such memory")
		return nil
	}
	parent := n.parent
	if !parent.set {
		if parent, err = s.guessParent(ctx, n.namespace); err != nil {
			return err
		}
	}
	if _, err := s.stmts.setStandard.ExecContext(ctx, n.namespace, n.standard, parent.orNull(), n.updatedAt); err != nil {
		return fmt.Errorf("set standard: %w", err)
	}
	item.result = ResultSet
	return nil
}

// guessParent is the longest namespace with a standard that ends before a '-'
// or '/' of namespace.
func (s *store) guessParent(ctx context.Context, namespace string) (text, error) {
	for end := strings.LastIndexAny(namespace, "-/"); end > 0; end = strings.LastIndexAny(namespace[:end], "-/") {
		there, err := found(s.stmts.hasStandard.QueryRowContext(ctx, namespace[:end]))
		if err != nil {
			return text{}, fmt.Errorf("look for a parent: %w", err)
		}
		if there {
			return text{value: namespace[:end], set: true}, nil
		}
	}
	return text{}, nil
}

// namespaceClearsList applies the list namespace_meta_clears.
func namespaceClearsList() listStep[string] {
	return listStep[string]{
		list:     listNamespaceClears,
		items:    func(m *message) []string { return m.namespaceClears },
		describe: func(namespace *string) logItem { return logItem{op: OpNamespaceClear, namespace: *namespace} },
		apply: func(ctx context.Context, s *store, _ *push, namespace *string, item *logItem) error {
			done, err := s.stmts.clear.ExecContext(ctx, *namespace)
			if err != nil {
				return fmt.Errorf("clear namespace: %w", err)
			}
			return item.settle(done, ResultCleared, ResultNoop)
		},
	}
}
