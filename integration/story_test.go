package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// storyLines bounds one story.
const storyLines = 60

// story is what a person needs to see why a peer differs in a row: the newest entries about what the row's key names (ids, a namespace), with their
// batches, and what the peer did with them. It shows no content.
func (f *fleet) story(ctx context.Context, p *member, key string) string {
	names := strings.Fields(key)
	standards, err := f.strings(ctx, `select distinct payload ->> 'standard_id' from outbox where kind = 'namespace_set' and key = any ($1)`, names)
	if err != nil {
		return err.Error()
	}
	names = append(names, standards...)
	lines, err := f.strings(ctx, `
		select format('entry %s lane %s %s %s in %s, batch %s of fan-out %s (%s) after %s %s, dispatched %s: %s', o.id, o.lane, o.kind, o.key, o.namespace,
			b.number, b.fan_out, b.verdict, b.after_lanes, b.after_numbers, b.dispatched_at::time,
			coalesce(o.payload::jsonb - array['content', 'payload', 'memory', 'tags', 'metadata'], '{}'))
		from outbox o
		left join batches b on b.lane = o.lane and o.id = any (b.entries)
		where o.key = any ($1)
		   or o.kind = 'link' and (o.payload ->> 'source_id' = any ($1) or o.payload ->> 'target_id' = any ($1))
		   or o.kind = 'namespace_set' and o.payload ->> 'standard_id' = any ($1)
		   or o.kind = 'consolidate' and exists (select from json_array_elements(o.payload -> 'sources') s where s ->> 'id' = any ($1))
		   or o.kind = 'decision' and exists (
				select from pending_actions a where a.id = o.key and (a.memory_id = any ($1) or a.payload ->> 'id' = any ($1)))
		order by o.id`, names)
	if err != nil {
		return err.Error()
	}
	log, err := p.log(ctx)
	if err != nil {
		return err.Error()
	}
	var did []string
	for _, a := range log {
		about := slices.Contains(names, a.ID) || slices.Contains(names, a.Target) || strings.HasPrefix(a.Op, "namespace") && slices.Contains(names, a.Namespace)
		if about {
			did = append(did, fmt.Sprintf("push %d %s: %s of %s (to %q, namespace %q, %s): %s %s",
				a.Push, stamp(a.At), a.Op, a.ID, a.Target, a.Namespace, a.UpdatedAt, a.Result, a.Reason))
		}
	}
	return fmt.Sprintf("%s and %s: the writer's entries\n  %s\nand what the peer did\n  %s", p.id, key,
		strings.Join(lines[max(0, len(lines)-storyLines):], "\n  "), strings.Join(did[max(0, len(did)-storyLines):], "\n  "))
}
