package peer

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

const (
	// MaxPage is the most elements that peers give in one page.
	MaxPage = 1000

	// maxLinks bounds the links of one memory.
	maxLinks = 100_000

	// maxNamespaces bounds the namespaces of a peer.
	maxNamespaces = 100_000
)

// Page asks for a part of a list.
type Page struct {
	// Namespace alone is listed. Empty lists all.
	Namespace string
	// Limit is how many elements there are at most, 1..[MaxPage].
	Limit int
	// Offset is how many elements are left out at the beginning. 0 or more.
	Offset int
	// AsAgent is who asks (x-agent-id). Empty: nobody in particular.
	AsAgent string
}

func (p Page) query() url.Values {
	query := url.Values{"limit": {strconv.Itoa(p.Limit)}, "offset": {strconv.Itoa(p.Offset)}}
	if p.Namespace != "" {
		query.Set("namespace", p.Namespace)
	}
	return query
}

// StoredMemory is a peer's copy of a memory: the fields that have to be the same everywhere, as the peer wrote them. Nothing in it has been checked.
type StoredMemory struct {
	ID        string          `json:"id"`
	Namespace string          `json:"namespace"`
	Title     string          `json:"title"`
	Content   string          `json:"content"`
	Source    string          `json:"source"`
	UpdatedAt string          `json:"updated_at"`
	Tags      json.RawMessage `json:"tags"`
	Metadata  json.RawMessage `json:"metadata"`
}

// StoredLink is a peer's copy of a link: what names it.
type StoredLink struct {
	SourceID string `json:"source_id"`
	TargetID string `json:"target_id"`
	Relation string `json:"relation"`
}

// ArchivedMemory is a memory of a peer's archive: what names it.
type ArchivedMemory struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
}

// StoredPending is a peer's copy of a pending action.
type StoredPending struct {
	ID          string          `json:"id"`
	ActionType  string          `json:"action_type"`
	MemoryID    string          `json:"memory_id"` // empty: none
	Namespace   string          `json:"namespace"`
	Payload     json.RawMessage `json:"payload"`
	RequestedBy string          `json:"requested_by"`
	RequestedAt string          `json:"requested_at"`
	Status      string          `json:"status"`
	DecidedBy   string          `json:"decided_by"` // empty: nobody
	Approvals   json.RawMessage `json:"approvals"`
}

// Standard says which memory is the standard of a namespace.
type Standard struct {
	StandardID      string `json:"standard_id"`      // empty: none
	ParentNamespace string `json:"parent_namespace"` // empty: none
}

// Memories returns a page of the live memories that the agent may see. A peer leaves out what the agent may not see, and what has expired,
// after it has cut the page: a short or empty page does not mean that the list is at its end. The order is the peer's.
//
// This and the other reads return an [*Error] if the answer is not what was asked for; with [ErrLongAnswer] in its tree if a smaller page
// may do. They make one request each, under the rules of [Client.Post] for ctx. Redirects are not followed.
func (c *Client) Memories(ctx context.Context, page Page) ([]StoredMemory, error) {
	return readPage[StoredMemory](ctx, c, "/api/v1/memories", "memories", page)
}

// Archive returns a page of the archived memories. Peers show them to admins only ([ClassForbidden]).
func (c *Client) Archive(ctx context.Context, page Page) ([]ArchivedMemory, error) {
	return readPage[ArchivedMemory](ctx, c, "/api/v1/archive", "archived", page)
}

// Pendings returns a page of the pending actions, decided ones too.
func (c *Client) Pendings(ctx context.Context, page Page) ([]StoredPending, error) {
	return readPage[StoredPending](ctx, c, "/api/v1/pending", "pending", page)
}

func readPage[T any](ctx context.Context, c *Client, path, member string, page Page) ([]T, error) {
	if page.Limit < 1 || page.Limit > MaxPage || page.Offset < 0 {
		return nil, &Error{Class: ClassInvalidRequest, Detail: "a page has 1 to 1000 elements", unsent: true}
	}
	var list []T
	e := c.get(ctx, path, page.query(), page.AsAgent, func(body []byte) error {
		return readMembers(body, map[string]func(*json.Decoder) error{member: readList(&list, page.Limit)})
	})
	if e != nil {
		return nil, e
	}
	return list, nil
}

// Memory returns one live memory with its links, as far as the agent may see them; false if there is none that it may see. id must have the
// grammar of ids and not be ".".
func (c *Client) Memory(ctx context.Context, id, asAgent string) (m StoredMemory, links []StoredLink, found bool, err error) {
	e := c.get(ctx, "/api/v1/memories/"+url.PathEscape(id), nil, asAgent, func(body []byte) error {
		return readMembers(body, map[string]func(*json.Decoder) error{"memory": readOne(&m), "links": readList(&links, maxLinks)})
	})
	switch {
	case e == nil && m.ID != id:
		return StoredMemory{}, nil, false, &Error{Class: ClassMalformedAnswer, Status: http.StatusOK, Detail: "the answer is another memory"}
	case e == nil:
		return m, links, true, nil
	case e.Status == http.StatusNotFound:
		return StoredMemory{}, nil, false, nil
	default:
		return StoredMemory{}, nil, false, e
	}
}

// Links returns the links that a memory is an end of and whose ends the agent may see both; none if there is no such memory.
func (c *Client) Links(ctx context.Context, id, asAgent string) ([]StoredLink, error) {
	var links []StoredLink
	e := c.get(ctx, "/api/v1/links/"+url.PathEscape(id), nil, asAgent, func(body []byte) error {
		return readMembers(body, map[string]func(*json.Decoder) error{"links": readList(&links, maxLinks)})
	})
	if e != nil && e.Status != http.StatusNotFound {
		return nil, e
	}
	return links, nil
}

// Standard returns the standard of one namespace, the zero value if it has none.
func (c *Client) Standard(ctx context.Context, namespace, asAgent string) (Standard, error) {
	var s Standard
	e := c.get(ctx, "/api/v1/namespaces", url.Values{"namespace": {namespace}}, asAgent, func(body []byte) error {
		if json.Unmarshal(body, &s) != nil || !isObject(body) {
			return errNotUnderstood
		}
		return nil
	})
	if e != nil && e.Status != http.StatusNotFound {
		return Standard{}, e
	}
	return s, nil
}

// Namespaces returns the namespaces that the peer names. Receivers differ in which they name: those with a standard, or all.
func (c *Client) Namespaces(ctx context.Context, asAgent string) ([]string, error) {
	var list []namedNamespace
	e := c.get(ctx, "/api/v1/namespaces", nil, asAgent, func(body []byte) error {
		return readMembers(body, map[string]func(*json.Decoder) error{"namespaces": readList(&list, maxNamespaces)})
	})
	if e != nil {
		return nil, e
	}
	names := make([]string, 0, len(list))
	for _, n := range list {
		if n != "" {
			names = append(names, string(n))
		}
	}
	return names, nil
}

// namedNamespace is a namespace, given as text or as an object that has it as a member.
type namedNamespace string

// UnmarshalJSON reads either form.
func (n *namedNamespace) UnmarshalJSON(text []byte) error {
	var object struct {
		Namespace string `json:"namespace"`
	}
	if len(text) > 0 && text[0] == '{' {
		err := json.Unmarshal(text, &object)
		*n = namedNamespace(object.Namespace)
		return err
	}
	return json.Unmarshal(text, (*string)(n))
}
