//go:build unix

package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links may be on the way to a file: as many as Linux follows.
const maxLinks = 40

// walk is the way to a file: the folder that has been reached, open, and the names that are still to go.
type walk struct {
	reader

	dir   *os.File
	at    string   // where dir is, without symbolic links
	names []string // still to go
	links int      // followed so far
}

// open goes the whole way to the file and opens it.
func (r reader) open(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("no secret file is named")
	}
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("look at secret file: %w", err)
		}
		path = here + "/" + path
	}
	w := walk{reader: r, names: parts(path)}
	defer func() { _ = w.dir.Close() }()
	if err := w.root(); err != nil {
		return nil, err
	}
	for {
		f, err := w.step()
		if f != nil || err != nil {
			return f, err
		}
	}
}

// parts are the names of a path. What is lexically superfluous and could mean something else where links are, "..", is kept.
func parts(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// step takes the next name: into a folder, to where a link points, or to the file, which is returned.
func (w *walk) step() (*os.File, error) {
	if len(w.names) == 0 {
		return nil, fmt.Errorf("%s is no regular file: name the file with the secret", w.at)
	}
	name := w.names[0]
	path := filepath.Join(w.at, name)
	var stat unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(w.fd(), name, &stat, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return nil, fmt.Errorf("look at secret file: %w", &os.PathError{Op: "lstat", Path: path, Err: err})
	}
	// What kind it is may have changed when it is opened, by its owner or ours: then that fails, since no link is followed there.
	switch {
	case stat.Mode&unix.S_IFMT == unix.S_IFLNK:
		return nil, w.follow(name, path, int(stat.Uid))
	case len(w.names) > 1:
		w.names = w.names[1:]
		return nil, w.enter(name, path)
	}
	// Not blocking, so that a named pipe is refused instead of waited for.
	fd, err := w.openat(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open secret file: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil {
		err = w.checkFile(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// follow puts the target of a link in place of its name. The folder that it is in has been judged: nobody but who is trusted can exchange it.
func (w *walk) follow(name, path string, owner int) error {
	if !w.trusts(owner) {
		return fmt.Errorf("%s is a symbolic link of user %d, who may change it: name the file itself", path, owner)
	}
	if w.links++; w.links > maxLinks {
		return fmt.Errorf("%s is behind more than %d symbolic links: name the file itself", path, maxLinks)
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(w.fd(), name, target)
	if err != nil {
		return fmt.Errorf("look at secret file: %w", &os.PathError{Op: "readlink", Path: path, Err: err})
	}
	to := string(target[:n])
	w.names = append(parts(to), w.names[1:]...)
	if filepath.IsAbs(to) {
		return w.root()
	}
	return nil
}

// root begins anew at the root of the file system.
func (w *walk) root() error {
	f, err := os.OpenFile("/", folderFlags, 0)
	if err != nil {
		return fmt.Errorf("look at secret file's folder: %w", err)
	}
	return w.move(f, "/")
}

// enter goes into a folder.
func (w *walk) enter(name, path string) error {
	fd, err := w.openat(name, folderFlags|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("look at secret file's folder: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return w.move(os.NewFile(uintptr(fd), path), path)
}

// move makes an open folder the one that has been reached, if it may be gone through.
func (w *walk) move(to *os.File, path string) error {
	if w.dir != nil {
		_ = w.dir.Close()
	}
	w.dir, w.at = to, path
	info, err := to.Stat()
	if err != nil {
		return fmt.Errorf("look at secret file's folder: %w", err)
	}
	return w.checkFolder(path, info)
}

func (w *walk) fd() int { return int(w.dir.Fd()) }

func (w *walk) openat(name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(w.fd(), name, flags, 0)
		return err
	})
	return fd, err
}

// retry does it again while a signal interrupts it.
func retry(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
