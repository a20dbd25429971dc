package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/pgtest"
)

const (
	goodLine  = `{"id":"a","namespace":"n","title":"t","content":"c"}` + "\n"
	otherLine = `{"id":"b","namespace":"n","title":"u","content":"c"}` + "\n"
)

func TestImportCommand(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	file := filepath.Join(t.TempDir(), "memories.jsonl")
	if err := os.WriteFile(file, []byte(goodLine+otherLine), 0o600); err != nil {
		t.Fatal(err)
	}
	runWorker(t, url, "", "", "import", file).want(t, exitOK, "2 inserted, 0 updated, 0 moved, 0 unchanged, 0 bad; 2 entries", "")
	runWorker(t, url, "", goodLine, "import", "-", "--chunk", "1").want(t, exitOK, "1 unchanged", "")

	bad := runWorker(t, url, "", goodLine+"{\n"+otherLine, "import", "-", "--json")
	bad.want(t, exitFailed, "", "line 2: the JSON object ends too early\nworker: 1 of 3 lines were bad")
	var got map[string]any
	if err := json.Unmarshal([]byte(bad.stdout), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "seconds")
	delete(got, "entries_per_second")
	want := map[string]any{"lines": 3.0, "entries": 2.0, "inserted": 0.0, "updated": 0.0, "moved": 0.0, "unchanged": 2.0, "bad": 1.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}

	runWorker(t, url, "", `{"id":"c","namespace":"n","title":"t","content":"c"}`, "import", "-").
		want(t, exitFailed, "1 bad", `line 1 (id "c"): another memory of this namespace has this title`)
	// Nobody decides here.
	runWorker(t, url, "", goodLine, "import", "-", "--await", "--await-timeout", "20ms").
		want(t, exitFailed, "0 met, 0 not met, 1 undecided", "1 entries have no verdict yet")
}

func TestImportCommandRefuses(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	runWorker(t, url, "", "", "import", filepath.Join(t.TempDir(), "none")).want(t, exitFailed, "", "no such file")
	runWorker(t, url, "", "", "import", t.TempDir()).want(t, exitFailed, "", "is a folder")
	runWorker(t, url, "", goodLine, "import", "-", "--chunk", "5001").want(t, exitFailed, "", "a chunk has 1 to 5000 lines, not 5001")
	runWorker(t, pgtest.EmptyURL(t), "", goodLine, "import", "-").want(t, exitFailed, "", "run `worker migrate up`")
	runWorker(t, "postgres://nobody@127.0.0.1:1/none", "", goodLine, "import", "-").want(t, exitFailed, "", "connect to the database")
}

// With a worker that has no peers the local commit alone is the quorum.
func TestImportCommandAwaitsVerdicts(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	_, stop := startRun(t, url, "sender_id: host:test\nadmin: {listen: \"\"}", `"msg":"relay elected"`)
	runWorker(t, url, "", goodLine+otherLine, "import", "-", "--await").want(t, exitOK, "2 met, 0 not met, 0 undecided", "")
	runWorker(t, url, "", "", "status").want(t, exitOK, "2 met, 0 not met", "")
	if code := stop(); code != exitOK {
		t.Errorf("worker: got exit code %d, want 0", code)
	}
}
