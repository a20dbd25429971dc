//go:build unix

package localpg

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fakeArchive holds bin/postgres and bin/initdb, which only say "postgres (PostgreSQL) 17.5", and a pg_ctl that does
// nothing; all of mode 700.
//
//go:embed testdata/fake-postgres.txz
var fakeArchive []byte

// repository serves the archive as the library expects it: in a zip file, with its checksum beside it.
func repository(t *testing.T, checksum string) string {
	t.Helper()
	var jar bytes.Buffer
	archive := zip.NewWriter(&jar)
	entry, err := archive.Create("postgres-linux.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(fakeArchive); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if checksum == "" {
		sum := sha256.Sum256(jar.Bytes())
		checksum = hex.EncodeToString(sum[:])
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ".jar"):
			_, _ = w.Write(jar.Bytes())
		case strings.HasSuffix(r.URL.Path, ".jar.sha256"):
			_, _ = w.Write([]byte(checksum))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestFetch(t *testing.T) {
	t.Parallel()
	url := repository(t, "")
	cache := t.TempDir()
	final := filepath.Join(cache, "postgres-17")

	var wg sync.WaitGroup
	for range 3 { // several processes at once
		wg.Go(func() {
			if err := fetch(embeddedpostgres.V17, url, final); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	bin, err := inspect(t.Context(), account{}, 17, filepath.Join(final, "bin"))
	if err != nil || bin.version != "17.5" {
		t.Errorf("got %+v, %v, want version 17.5", bin, err)
	}
	for path, want := range map[string]os.FileMode{"bin": 0o755, "bin/postgres": 0o755} {
		info, err := os.Stat(filepath.Join(final, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("got mode %o of %s, want %o", got, path, want)
		}
	}
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v in the cache, want the binaries alone", entries, err)
	}
}

func TestFetchRefuses(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(gone.Close)
	tests := map[string]struct {
		url, want string
	}{
		"wrong checksum": {repository(t, strings.Repeat("0", 64)), "checksums do not match"},
		"not there":      {gone.URL, "no version found matching 17"},
		"no server":      {"http://127.0.0.1:1", "unable to connect"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := t.TempDir()
			err := fetch(embeddedpostgres.V17, test.url, filepath.Join(cache, "postgres-17"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one that holds %q", err, test.want)
			}
			if entries, err := os.ReadDir(cache); err != nil || len(entries) != 0 {
				t.Errorf("got %v, %v in the cache, want nothing", entries, err)
			}
		})
	}
}

func TestDownloadVersion(t *testing.T) {
	t.Parallel()
	for _, major := range []int{0, 14, 15, 16, 17, 18} {
		version, err := downloadVersion(major)
		if err != nil {
			t.Errorf("%d: %v", major, err)
		}
		if want := []string{"17.", "14.", "15.", "16.", "17.", "18."}[max(0, major-13)]; !strings.HasPrefix(string(version), want) {
			t.Errorf("got version %s for %d, want %s", version, major, want)
		}
	}
	if _, err := downloadVersion(13); err == nil {
		t.Error("got no error for 13")
	}
}
