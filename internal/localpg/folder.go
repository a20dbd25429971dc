//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What a server's folder holds.
const (
	dataName     = "data"         // Postgres' own data folder
	lockName     = "lock"         // locked (flock) by the process that uses the folder
	logName      = "postgres.log" // what the server says
	passwordName = "password"     // of the superuser
	settingsName = "quorumbox.conf"
	versionName  = "PG_VERSION" // Postgres' own: the major version that made the data
)

// folder is a server's folder, locked by this process. Everything inside is reached through root, so that links put there
// by the less privileged user of the server lead nowhere else.
type folder struct {
	path      string
	temporary bool
	account   account
	root      *os.Root
	lock      *os.File
}

// openFolder creates or takes the folder, hands it to the account and locks it. bases are the places for a temporary one.
func openFolder(dir string, acc account, bases []string) (*folder, error) {
	f := &folder{path: dir, account: acc, temporary: dir == ""}
	var err error
	if f.temporary {
		f.path, err = makeTemporary(acc, bases)
	} else {
		f.path, err = makeKept(dir, acc)
	}
	if err != nil {
		return nil, err
	}
	if err := f.claim(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// makeKept creates the folder, or checks that an existing one is empty or ours.
func makeKept(dir string, acc account) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	ours := len(entries) == 0
	for _, entry := range entries {
		ours = ours || entry.Name() == lockName
	}
	if !ours {
		return "", fmt.Errorf("folder %s is not empty and was not made by quorumbox: choose another one", path)
	}
	return path, acc.reach(path)
}

func (f *folder) claim() error {
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return err
	}
	f.root = root
	lock, err := root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		// Another process owns the folder: it is not ours to remove.
		f.temporary = false
		return errors.Join(fmt.Errorf("folder %s is in use by another process: %w", f.path, err), lock.Close())
	}
	f.lock = lock
	if err := f.own("."); err != nil {
		return err
	}
	return root.Chmod(".", 0o700)
}

// own hands a file to the account that runs the server.
func (f *folder) own(name string) error {
	if f.account.name == "" {
		return nil
	}
	return f.root.Lchown(name, int(f.account.uid), int(f.account.gid))
}

// close gives the folder up, and removes a temporary one.
func (f *folder) close() error {
	var errs []error
	if f.temporary {
		errs = append(errs, removeBusy(f.path))
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	if f.root != nil {
		errs = append(errs, f.root.Close())
	}
	return errors.Join(errs...)
}

// removeBusy removes a folder into which children of a killed server may write until they notice that it is gone.
func removeBusy(path string) error {
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := os.RemoveAll(path)
		if err == nil {
			return nil
		}
		select {
		case <-timer.C:
			return err
		case <-tick.C:
		}
	}
}

func (f *folder) dataPath() string     { return filepath.Join(f.path, dataName) }
func (f *folder) passwordPath() string { return filepath.Join(f.path, passwordName) }

// deathSignal is what the server gets when its parent dies: nobody will read a temporary folder, so that server ends at
// once; data that is kept gets a clean shutdown.
func (f *folder) deathSignal() syscall.Signal {
	if f.temporary {
		return syscall.SIGQUIT
	}
	return syscall.SIGINT
}

// dataMajor is the major version of Postgres that made the data, 0 if there is none yet.
func (f *folder) dataMajor() (int, error) {
	text, err := f.root.ReadFile(filepath.Join(dataName, versionName))
	if errors.Is(err, fs.ErrNotExist) {
		// What an initdb that was killed left is of no use.
		return 0, f.removeData()
	}
	if err != nil {
		return 0, err
	}
	// The include line is written after initdb has finished: without it the data is as unfinished as without a version.
	conf, err := f.root.ReadFile(filepath.Join(dataName, "postgresql.conf"))
	if err != nil || !strings.HasSuffix(string(conf), includeLine) {
		return 0, f.removeData()
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s is damaged: %w", filepath.Join(f.dataPath(), versionName), err)
	}
	return major, nil
}

func (f *folder) removeData() error { return f.root.RemoveAll(dataName) }

func (f *folder) readPassword() (string, error) {
	text, err := f.root.ReadFile(passwordName)
	if err != nil {
		return "", fmt.Errorf("read the password of the data in %s: %w", f.path, err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (f *folder) writePassword(password string) error {
	return f.write(passwordName, password+"\n")
}

const includeLine = "\ninclude_if_exists = '" + settingsName + "'\n"

// includeSettings makes the server read our settings after its own file and before what "alter system" stores.
func (f *folder) includeSettings() error {
	file, err := f.root.OpenFile(filepath.Join(dataName, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(includeLine)
	return errors.Join(err, file.Close())
}

func (f *folder) writeSettings(port int, settings map[string]string) error {
	return f.write(filepath.Join(dataName, settingsName), settingsFile(port, settings))
}

func (f *folder) write(name, text string) error {
	if err := f.root.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	return f.own(name)
}

// openLog opens the server's log for a new run and says where that run begins.
func (f *folder) openLog() (log *os.File, offset int64, err error) {
	log, err = f.root.OpenFile(logName, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := log.Stat()
	if err == nil {
		err = f.own(logName)
	}
	if err != nil {
		return nil, 0, errors.Join(err, log.Close())
	}
	return log, info.Size(), nil
}

// logSince is what the server has said from offset on.
func (f *folder) logSince(offset int64) string {
	text, err := f.root.ReadFile(logName)
	if err != nil || int64(len(text)) < offset {
		return ""
	}
	return string(text[offset:])
}

// waitForLastServer gives the server of a parent that was killed a moment ago the time to shut down. If it takes longer,
// the new server itself says what is wrong.
func (f *folder) waitForLastServer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*killGrace)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for serverAlive(f.path) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// serverAlive says whether the process that the data folder names as its server exists.
func serverAlive(path string) bool {
	text, err := os.ReadFile(filepath.Join(path, dataName, "postmaster.pid")) //nolint:gosec // the folder is ours
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return false
	}
	err = syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
