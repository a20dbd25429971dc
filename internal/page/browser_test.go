package page_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shotsVariable names a folder for pictures of the page, for people who change it.
const shotsVariable = "PAGE_SCREENSHOTS"

// patience is how long a browser on a busy machine may take to show something.
const patience = 60 * time.Second

// startBrowser starts a Chromium for the test, or skips it loudly where there is none; with CI=true that is a failure.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if found, err := osexec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		const text = "no Chromium found: install one (Debian: apt-get install --no-install-recommends chromium)"
		if os.Getenv("CI") == "true" {
			t.Fatal(text)
		}
		t.Skip("SKIPPED, NOT TESTED: " + text)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true))
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(stop)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(browser); err != nil {
			t.Logf("end of the browser: %v", err)
		}
		cancel()
	})
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	return browser
}

// tab is one window on the page. It notes what no page may do: errors on the console, and requests to another origin.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	problems []string
	expected func(text string) bool // of the problems
	asked    int                    // requests for /api/page
}

type window struct {
	width, height int64
	dark          bool
}

func open(browser context.Context, t *testing.T, base string, l window) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	b := &tab{t: t, ctx: ctx, base: base, expected: func(string) bool { return false }}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	var mobile []chromedp.EmulateViewportOption
	if l.width < 500 {
		mobile = append(mobile, chromedp.EmulateMobile)
	}
	b.run(chromedp.EmulateViewport(l.width, l.height, mobile...), chromedp.Navigate(base+"/"))
	t.Cleanup(func() {
		b.noProblems()
		cancel()
	})
	return b
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	add := func(format string, args ...any) { b.problems = append(b.problems, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Scheme+"://"+u.Host != b.base {
			add("request to %s", e.Request.URL)
		} else if u.Path == "/api/page" {
			b.asked++
		}
	case *runtime.EventExceptionThrown:
		add("exception: %v", e.ExceptionDetails)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			add("console.%s: %v", e.Type, e.Args)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			add("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	}
}

func (b *tab) noProblems() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		if !b.expected(p) {
			b.t.Errorf("the page: %s", p)
		}
	}
	b.problems = nil
}

func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// get returns what an action gives.
func get[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	got, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// call sends a command of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what an expression is in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	return get(b, chromedp.Evaluate[T](expression))
}

// until waits for an expression to be true.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; {
		if eval[bool](b, "Boolean("+expression+")") {
			return
		}
		if time.Now().After(end) {
			b.shot("failed")
			b.t.Fatalf("waited %s for %s. The page says:\n%s", patience, what, eval[string](b, "document.body.innerText"))
		}
		b.run(chromedp.Sleep(50 * time.Millisecond))
	}
}

// shows waits until the page has a text.
func (b *tab) shows(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%q", text), fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// asks clicks a button until the page asks what it asks before it does something: what is live may move a button away in the moment of a click, and a person clicks again.
func (b *tab) asks(button chromedp.CSS) {
	b.t.Helper()
	const looks = 20 // a second
	for end := time.Now().Add(patience); time.Now().Before(end); {
		b.run(chromedp.Click(button))
		for range looks {
			if eval[bool](b, `document.querySelector("#dialog").open`) {
				return
			}
			b.run(chromedp.Sleep(50 * time.Millisecond))
		}
	}
	b.shot("failed")
	b.t.Fatalf("clicked %s for %s, and was asked nothing. The page says:\n%s", button, patience, eval[string](b, "document.body.innerText"))
}

// shot saves a picture of the whole page, where somebody wants one.
func (b *tab) shot(name string) {
	b.t.Helper()
	dir := os.Getenv(shotsVariable)
	if dir == "" {
		return
	}
	picture := get(b, chromedp.FullScreenshot(100))
	file := filepath.Join(dir, strings.ReplaceAll(b.t.Name(), "/", "_")+"_"+name+".png")
	if err := os.WriteFile(file, picture, 0o600); err != nil { //nolint:gosec // whoever runs the test says where
		b.t.Error(err)
	}
}

// requests is how often the page has asked how the fleet stands.
func (b *tab) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

// fits wants nothing to stick out of the window.
func (b *tab) fits() {
	b.t.Helper()
	if over := eval[int](b, "document.documentElement.scrollWidth - window.innerWidth"); over > 0 {
		b.t.Errorf("the page is %d pixels wider than the window", over)
	}
}

// choose is somebody's choice in a select.
func choose(id, value string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`{ const s = document.getElementById(%q); s.value = %q; s.dispatchEvent(new Event("change")); }`, id, value))
}
