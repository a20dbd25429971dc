//go:build unix

package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// systemCache keeps downloaded binaries for root: root's own cache folder is closed to the user that runs the server.
const systemCache = "/var/cache"

// download returns the folder of binaries that an earlier call has downloaded, or downloads them (about 15 MB, once per
// machine and version). Several processes may do so at once; the first one's stay.
func download(ctx context.Context, acc account, major int, logger *slog.Logger) (string, error) {
	version, err := downloadVersion(major)
	if err != nil {
		return "", err
	}
	cache := systemCache
	if acc.name == "" {
		cache, err = os.UserCacheDir()
		if err != nil {
			return "", err
		}
	}
	final := filepath.Join(cache, "quorumbox", "postgres-"+string(version))
	bin := filepath.Join(final, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return bin, nil
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil { //nolint:gosec // the server's user reads here
		return "", err
	}
	logger.InfoContext(ctx, "no postgres installed, downloading one", slog.String("version", string(version)), slog.String("dir", final))

	// The library's download knows no context. When ours ends first, the download is left to itself: it writes to its own
	// temporary folder, removes that, and ends with its last byte or with the process.
	done := make(chan error, 1) // one send; never blocks
	go func() { done <- fetch(version, "", final) }()
	select {
	case err := <-done:
		if err != nil {
			return "", err
		}
		return bin, nil
	case <-ctx.Done():
		return "", fmt.Errorf("download postgres %s: %w", version, context.Cause(ctx))
	}
}

// downloadVersion is the release to download for a major version; 0 is the one that the compose file names.
func downloadVersion(major int) (embeddedpostgres.PostgresVersion, error) {
	switch major {
	case 0, 17:
		return embeddedpostgres.V17, nil
	case 14:
		return embeddedpostgres.V14, nil
	case 15:
		return embeddedpostgres.V15, nil
	case 16:
		return embeddedpostgres.V16, nil
	case 18:
		return embeddedpostgres.V18, nil
	default:
		return "", errors.New("no download is known for version " + strconv.Itoa(major))
	}
}

// fetch downloads and unpacks into a temporary folder, then moves the result into place. An empty repository is the
// library's own.
func fetch(version embeddedpostgres.PostgresVersion, repository, final string) error {
	work, err := os.MkdirTemp(filepath.Dir(final), "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	unpacked := filepath.Join(work, "unpacked")
	if err := unpack(version, repository, work, unpacked); err != nil {
		return fmt.Errorf("download postgres %s: %w", version, err)
	}
	if err := makeReadable(unpacked); err != nil {
		return err
	}
	err = os.Rename(unpacked, final)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	return err
}

// unpack makes the library download and unpack, and nothing more. It has no call for that: its Start goes on to initdb and
// to the server, which it cannot run for root. A data folder that claims to be initialised and is not makes Start skip the
// first and give up on the second at once; so its error counts only if the binaries are not there.
func unpack(version embeddedpostgres.PostgresVersion, repository, work, target string) error {
	data := filepath.Join(work, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, versionName), []byte(version), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(work, "log")) //nolint:gosec // a name in our own temporary folder
	if err != nil {
		return err
	}
	defer log.Close()

	config := embeddedpostgres.DefaultConfig().
		Version(version).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "runtime")).
		BinariesPath(target).
		DataPath(data).
		Port(0).
		Logger(log)
	if repository != "" {
		config = config.BinaryRepositoryURL(repository)
	}
	startErr := embeddedpostgres.NewDatabase(config).Start()
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(target, "bin", program)); err != nil {
			return cmp.Or(startErr, err)
		}
	}
	return nil
}

// makeReadable lets every user run the binaries, whatever the caller's umask was.
func makeReadable(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if entry.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return root.Chmod(path, mode)
	})
}
