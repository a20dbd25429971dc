package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"
)

// leaks is where a secret can be found in a table or a log, or a memory's content in a job or a log (C9).
func (f *fleet) leaks(ctx context.Context) []string {
	tables, err := f.strings(ctx, `
		select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE' order by 1`)
	if err != nil {
		return []string{err.Error()}
	}
	conn, err := f.pool.Acquire(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Release()

	var found []string
	look := func(where string, text []byte, wanted map[string]string) {
		for what, value := range wanted {
			if bytes.Contains(text, []byte(value)) {
				found = append(found, fmt.Sprintf("C9: %s holds the %s", where, what))
			}
		}
	}
	content := map[string]string{"content of a memory": payloadCanary}
	for _, table := range tables {
		// What a dump of the data alone consists of.
		var text bytes.Buffer
		if _, err := conn.Conn().PgConn().CopyTo(ctx, &text, "copy "+pgx.Identifier{table}.Sanitize()+" to stdout"); err != nil {
			found = append(found, err.Error())
		}
		look("table "+table, text.Bytes(), f.secrets)
		switch table {
		case "memories", "outbox", "archived_memories", "pending_actions":
		default:
			look("table "+table, text.Bytes(), content)
		}
	}
	if f.admin != "" && slices.ContainsFunc(f.workers, func(w *process) bool { return !w.hasEnded() }) {
		page, err := f.page(ctx, "/metrics")
		if err != nil {
			found = append(found, err.Error())
		}
		look("the page of metrics", page, f.secrets)
		look("the page of metrics", page, content)
	}
	processes := f.workers
	for _, p := range f.peers {
		if p.proc != nil {
			processes = append(processes[:len(processes):len(processes)], p.proc)
		}
	}
	for _, p := range processes {
		look("log of "+p.name, p.output(), f.secrets)
		look("log of "+p.name, p.output(), content)
	}
	return found
}

// page is a page of the worker that has the admin address.
func (f *fleet) page(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.admin+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := f.peers[0].client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, res.Status)
	}
	return page, err
}
