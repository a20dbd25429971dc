package page_test

import (
	"fmt"
	"testing"
)

func wide() window  { return window{width: 1280, height: 900} }
func dark() window  { return window{width: 1280, height: 900, dark: true} }
func phone() window { return window{width: 360, height: 740} }

// TestShow: fleets of all sizes, in all looks: everything is there, nothing sticks out of the window, and nothing is asked of anybody else.
func TestShow(t *testing.T) {
	browser := startBrowser(t)
	t.Run("no peers", func(t *testing.T) {
		server, _ := serve(t)
		for _, w := range []window{wide(), phone()} {
			b := open(browser, t, server.URL, w)
			b.shows("No peers yet")
			b.shows("No worker is running.")
			b.shows("Somebody should look")
			b.fits()
			b.shot(fmt.Sprint(w.width))
		}
	})
	t.Run("a dead peer of three", func(t *testing.T) {
		server, pool := serve(t)
		lead(t, pool)
		addPeers(t, pool, 3)
		traffic(t, pool, 560, 12, "met", "")
		kill(t, pool, "peer-02", 30)
		exec(t, pool, `
			insert into refusals (peer, entry, lane, class, first_at, next_at)
			select 'peer-03', i, 3, 'skipped', now() - interval '3 hours', now() + interval '9 minutes' from generate_series(1, 4) i`)
		works(t, pool)
		for _, w := range []window{wide(), dark(), phone()} {
			b := open(browser, t, server.URL, w)
			b.shows("refused connection")
			b.shows("nothing listens at the peer's address: start the peer or correct its url")
			b.shows("refuses 4 entries: skipped")
			b.shows("2 of 3 in step")
			b.shows("3 lanes")
			b.until("the colours of the dead peer's lanes", `document.querySelectorAll("#peers li:nth-child(2) .cell[data-level]:not([data-level='0'])").length === 30`)
			b.until("no colour at a peer in step", `document.querySelectorAll("#peers li:nth-child(1) .cell[data-level='0']").length === 32`)
			b.until("points of the time series", `document.querySelectorAll("#tile-rate path, #tile-quorum rect.met").length > 50`)
			b.fits()
			b.shot(fmt.Sprintf("%d-%v", w.width, w.dark))
		}
	})
	t.Run("24 peers", func(t *testing.T) {
		server, pool := serve(t)
		crowd(t, pool, 24)
		for _, w := range []window{wide(), dark(), phone()} {
			b := open(browser, t, server.URL, w)
			b.shows("peer-24")
			b.shows("memories: 12,300 of about 50,000")
			b.shows("paused by an operator")
			b.shows("not configured")
			b.shows("missed: timeout")
			b.fits()
			b.shot(fmt.Sprintf("%d-%v", w.width, w.dark))
		}
	})
	t.Run("64 peers", func(t *testing.T) {
		server, pool := serve(t)
		crowd(t, pool, 64)
		b := open(browser, t, server.URL, wide())
		b.until("a row for each peer", `document.querySelectorAll("#peers > li").length === 64 && document.querySelectorAll("#peers .cell").length === 64 * 32`)
		b.run(choose("order", "worst"))
		b.until("the worst first", `document.querySelector("#peers > li").dataset.condition === "lagging" && document.querySelector("#peers > li").dataset.key !== "peer-01"`)
		b.fits()
		b.shot("worst-first")
	})
}
