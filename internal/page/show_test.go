package page_test

import "testing"

// TestShow: what fleets of all sizes look like.
func TestShow(t *testing.T) {
	browser := startBrowser(t)
	wide, phone := window{width: 1280, height: 900}, window{width: 360, height: 740}
	t.Run("no peers", func(t *testing.T) {
		server, _ := serve(t)
		b := open(t, browser, server.URL, wide)
		b.shows("No peers yet")
		b.shot("wide")
	})
	t.Run("a dead peer of three", func(t *testing.T) {
		server, pool := serve(t)
		lead(t, pool)
		addPeers(t, pool, 3)
		traffic(t, pool, 550, 12, "met", "")
		kill(t, pool, "peer-02", 30)
		exec(t, pool, `insert into refusals (peer, entry, lane, class, first_at, next_at) select 'peer-03', i, 3, 'skipped', now() - interval '3 hours', now() + interval '9 minutes' from generate_series(1, 4) i`)
		b := open(t, browser, server.URL, wide)
		b.shows("refused connection")
		b.shot("wide")
		b = open(t, browser, server.URL, window{width: 1280, height: 900, dark: true})
		b.shows("refused connection")
		b.shot("dark")
		b = open(t, browser, server.URL, phone)
		b.shows("refused connection")
		b.shot("phone")
	})
}
