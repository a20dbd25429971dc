package page_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"quorumbox/jobs"
)

// TestLive: what changes is shown without a reload, and an old picture never passes for a new one.
func TestLive(t *testing.T) {
	browser := startBrowser(t)
	server, pool := serve(t)
	lead(t, pool)
	addPeers(t, pool, 3)
	traffic(t, pool, 60, 5, "met", "")
	var away atomic.Bool
	target := server.Config.Handler
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler) // as a worker that is gone: no answer
		}
		target.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	b := open(browser, t, front.URL, wide())
	b.shows("3 of 3 in step")
	b.shows("All is well")
	b.run(chromedp.Evaluate[chromedp.Void](`window.loadedOnce = true`))

	kill(t, pool, "peer-02", 7)
	b.until("the dead peer's lanes", `document.querySelectorAll("#peers li:nth-child(2) .cell[data-level]:not([data-level='0'])").length > 3`)
	b.shows("2 of 3 in step")
	b.shows("Somebody should look")
	exec(t, pool, `delete from lagging`)
	b.shows("3 of 3 in step")
	addPeer(t, pool, "peer-09")
	b.shows("peer-09")

	away.Store(true)
	b.shows("the worker that serves this page does not answer")
	b.until("old numbers that look so", `document.body.hasAttribute("data-stale") && document.querySelector("#live").dataset.state === "stale"`)
	b.shot("stale")
	away.Store(false)
	b.until("all to be as before", `!document.body.hasAttribute("data-stale") && document.querySelector("#stale").hidden`)
	exec(t, pool, `alter table lagging rename to lagging_away`)
	b.shows("the database cannot be read: see the worker's log")
	exec(t, pool, `alter table lagging_away rename to lagging`)
	b.until("all to be as before", `!document.body.hasAttribute("data-stale")`)
	if !eval[bool](b, "window.loadedOnce === true") {
		t.Error("the page was loaded again")
	}
	b.expected = func(text string) bool {
		return strings.Contains(text, "ERR_EMPTY_RESPONSE") || strings.Contains(text, "503")
	}
}

// TestHidden: a page that nobody sees asks nothing, and asks at once when somebody looks.
func TestHidden(t *testing.T) {
	browser := startBrowser(t)
	server, pool := serve(t)
	lead(t, pool)
	addPeers(t, pool, 1)
	b := open(browser, t, server.URL, wide())
	b.shows("1 of 1 in step")
	const hide = `Object.defineProperty(document, "hidden", {configurable: true, get: () => %s}); document.dispatchEvent(new Event("visibilitychange"));`
	b.run(chromedp.Evaluate[chromedp.Void](strings.Replace(hide, "%s", "true", 1)))
	before := b.requests()
	b.run(chromedp.Evaluate[chromedp.Void](`window.waited = false; setTimeout(() => { window.waited = true; }, 5000)`))
	b.until("more than two turns", "window.waited")
	if n := b.requests() - before; n > 0 {
		t.Errorf("got %d requests while hidden, want none", n)
	}
	addPeer(t, pool, "peer-09")
	b.run(chromedp.Evaluate[chromedp.Void](strings.Replace(hide, "%s", "false", 1)))
	b.shows("peer-09")
}

// TestByKeyboard: lanes and points are read by arrow keys; the same is there as a table.
func TestByKeyboard(t *testing.T) {
	browser := startBrowser(t)
	server, pool := serve(t)
	lead(t, pool)
	addPeers(t, pool, 2)
	traffic(t, pool, 120, 5, "met", "")
	kill(t, pool, "peer-02", 10)
	b := open(browser, t, server.URL, wide())
	b.shows("1 of 2 in step")
	strip := chromedp.CSS("#peers li:nth-child(2) .strip")
	b.run(chromedp.Focus(strip), chromedp.KeyEvent(kb.Home))
	b.until("the first lane's numbers", `document.querySelector("#tip").innerText.startsWith("peer-02, lane 0: ") && document.querySelector("#tip").innerText.includes("behind, oldest")`)
	b.run(chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowRight))
	b.until("the third lane's numbers", `document.querySelector("#tip").innerText.startsWith("peer-02, lane 2: ")`)
	b.run(chromedp.KeyEvent(kb.End))
	b.until("a lane in step", `document.querySelector("#tip").innerText === "peer-02, lane 31: in step"`)
	b.until("the row in words", `document.querySelector("#peers li:nth-child(2) .strip").getAttribute("aria-label").startsWith("Lanes of peer-02: 10 lag, ")`)
	b.run(chromedp.KeyEvent(kb.Escape))
	b.until("no numbers", `document.querySelector("#tip").hidden`)
	b.run(chromedp.Focus(chromedp.CSS("#tile-latency .chart")), chromedp.KeyEvent(kb.ArrowLeft))
	b.until("a point's numbers", `document.querySelector("#tip").innerText.includes("p50 ")`)
	b.run(chromedp.Click(chromedp.CSS("#as-table summary")))
	b.until("the table", `document.querySelectorAll("#lane-rows tr").length === 10 && document.querySelector("#lane-rows tr").innerText.startsWith("peer-02")`)
	b.run(chromedp.Click(chromedp.CSS(".choice label:nth-of-type(2)")))
	b.until("the other legend", `document.querySelector("#legend").innerText.includes("100k +")`)
}

// TestActions: asked first, done by clicking, and told.
func TestActions(t *testing.T) {
	browser := startBrowser(t)
	server, pool := serve(t)
	lead(t, pool)
	addPeers(t, pool, 3)
	exec(t, pool, `insert into refusals (peer, entry, lane, class, next_at) values ('peer-03', 1, 3, 'skipped', now() + interval '1 hour')`)
	exec(t, pool, `insert into river_queue (name, created_at, updated_at, paused_at) values ($1, now(), now(), now())`, jobs.FanOutQueue)
	for _, w := range []window{wide(), phone()} {
		b := open(browser, t, server.URL, w)
		b.shows("3 of 3 in step")
		button := func(row int, n int) chromedp.CSS {
			return chromedp.CSS(fmt.Sprintf("#peers > li:nth-child(%d) .buttons button:nth-child(%d)", row, n))
		}

		b.asks(button(2, 1))
		b.shows("Pause peer-02?")
		b.shot("dialog")
		b.run(chromedp.Click(chromedp.CSS("#dialog-no")))
		b.until("no question", `!document.querySelector("#dialog").open`)
		if count(t, pool, paused, jobs.PeerQueue("peer-02")) != 0 {
			t.Fatal("cancelled, and paused all the same")
		}
		b.asks(button(2, 1))
		b.run(chromedp.Click(chromedp.CSS("#dialog-yes")))
		b.shows("peer-02 is paused")
		b.until("the peer to be shown as paused", `document.querySelector("#peers > li:nth-child(2)").dataset.condition === "paused"`)
		if count(t, pool, paused, jobs.PeerQueue("peer-02")) != 1 {
			t.Error("shown as paused, and it is not")
		}
		b.asks(button(2, 1))
		b.run(chromedp.KeyEvent(kb.Enter)) // the button has the focus
		b.shows("peer-02 is resumed")
		if count(t, pool, paused, jobs.PeerQueue("peer-02")) != 0 {
			t.Error("shown as resumed, and it is not")
		}

		b.asks(button(1, 2))
		b.shows("Type peer-01 to confirm")
		b.until("nothing to be done before that", `document.querySelector("#dialog-yes").disabled`)
		b.run(chromedp.SendKeys(chromedp.CSS("#dialog-input"), "peer-01"), chromedp.Click(chromedp.CSS("#dialog-yes")))
		b.shows("peer-01 is brought the current state")
		b.until("the snapshot", `document.querySelector("#peers > li:nth-child(1)").dataset.condition === "snapshot"`)
		exec(t, pool, `delete from snapshots`)
		exec(t, pool, `delete from lagging`)
		b.until("the end of the snapshot", `document.querySelector("#peers > li:nth-child(1)").dataset.condition === "in_step"`)

		b.asks("#peers > li:nth-child(3) .note button")
		b.run(chromedp.Click(chromedp.CSS("#dialog-yes")))
		b.shows("1 entry that peer-03 refuses: tried again")
		if count(t, pool, `select count(*) from refusals where next_at <= now()`) != 1 {
			t.Error("told that it is tried again, and it is not due")
		}

		// What a worker refuses is told where it was asked for.
		exec(t, pool, `update peers set state = 'absent' where id = 'peer-01'`)
		b.run(chromedp.Evaluate[chromedp.Void](`import("./page/actions.js").then((m) => m.act("resync", {id: "peer-01"}))`))
		b.shows("Type peer-01 to confirm")
		b.run(chromedp.SendKeys(chromedp.CSS("#dialog-input"), "peer-01"), chromedp.Click(chromedp.CSS("#dialog-yes")))
		b.shows("peer-01 is absent: add it to the configuration")
		b.shot("refused")
		b.run(chromedp.KeyEvent(kb.Escape))
		exec(t, pool, `update peers set state = 'active'`)
		exec(t, pool, `update refusals set next_at = now() + interval '1 hour'`)
		b.expected = func(text string) bool { return strings.Contains(text, "409") }
		b.noProblems()
	}
	b := open(browser, t, server.URL, wide())
	b.asks("#warnings button")
	b.run(chromedp.Click(chromedp.CSS("#dialog-yes")))
	b.shows("the queue fan_out is resumed")
	b.until("no warning any more", `document.querySelectorAll("#warnings li").length === 0`)
}
