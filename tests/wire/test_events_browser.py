"""A plain ``EventSource`` in Chromium, on the page of another origin, through restarts and tokens that run out."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from browser import Chromium, needs_browser
from wire import HS256_KEYS, Node, forged, running

PAGE = b"""<!doctype html><title>listening</title><link rel="icon" href="data:,"><script>
function listener(source_of) {  // what a page does with an EventSource, and no more
  const it = {seen: [], ends: [], hellos: 0, resets: 0, position: ''}
  async function open() {
    const [epoch, after] = it.position.split(':')
    const query = new URLSearchParams(after ? {after, epoch} : {})
    let source
    try { source = await source_of(query) } catch { return setTimeout(open, 100) }
    source.addEventListener('hello', event => { it.hellos++; it.resets += JSON.parse(event.data).reset })
    source.addEventListener('notification', event => {
      it.seen.push(JSON.parse(event.data).seq)
      it.position = event.lastEventId
    })
    source.addEventListener('close', event => {
      const reason = JSON.parse(event.data).reason
      it.ends.push(reason)
      if (reason != 'draining') { source.close(); it.fresh = true; open() }  // else it comes back by itself
    })
  }
  open()
  return it
}
let renewing = null
async function token(given, again) {
  if (!again) return given.access_token
  renewing ??= ask('/auth/refresh', null, {refresh_token: given.refresh_token})
  return (await renewing).access_token
}
async function ask(path, bearer, body) {
  const headers = body ? {'Content-Type': 'application/json'} : {Authorization: 'Bearer ' + bearer}
  const answer = await fetch(gateway + path, {method: 'POST', headers, body: body && JSON.stringify(body)})
  if (!answer.ok) throw answer.status
  return answer.json()
}
function begin(url, given) {
  window.gateway = url
  window.byToken = listener(async query => {
    query.set('token', await token(given, window.byToken?.fresh))
    return new EventSource(url + '/events?' + query)
  })
  window.byTicket = listener(async query => {
    query.set('token', (await ask('/auth/ticket', await token(given, window.byTicket?.fresh))).ticket)
    return new EventSource(url + '/events?' + query)
  })
}
</script>"""


@contextlib.contextmanager
def page() -> Iterator[str]:
    """The origin that serves it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@needs_browser
def test_an_event_source_misses_nothing_and_shows_nothing_twice(tmp_path: Path, chromium: Chromium) -> None:
    with (
        page() as origin,
        running(tmp_path, signing_keys=HS256_KEYS, allowed_origins=origin) as node,
        chromium.profile() as tab,
    ):
        browser = tab()
        user, shop = node.user(), node.client_token()
        signed_in = user.sign_in()
        first = forged(signed_in["access_token"], exp=int(time.time()) + 3)
        given = {"access_token": first, "refresh_token": signed_in["refresh_token"]}
        browser.go(origin)
        browser.run(f"begin({json.dumps(node.url)}, {json.dumps(given)})")
        stored = 0

        def push(count: int) -> None:
            nonlocal stored
            node.batch(shop, *[{"user_id": user.id}] * count)
            stored += count

        def both(condition: str) -> None:
            for name in ("byToken", "byTicket"):
                browser.until(f"{name}.{condition}")

        both("hellos == 1")
        push(5)
        both(f"seen.length == {stored}")
        both("hellos == 2")  # the token has run out, and the page was given another
        for end in (Node.stop, Node.kill, Node.stop):
            push(10)
            end(node)
            node.start()
            push(5)
            both(f"seen.length >= {stored}")
        push(1)
        both(f"seen.length >= {stored}")
        for name in ("byToken", "byTicket"):
            told = browser.run(name)
            assert told["seen"] == list(range(1, stored + 1)), name
            assert told["resets"] == 0
        by_token, by_ticket = browser.run("byToken"), browser.run("byTicket")
        assert by_token["ends"] == ["token_expired", "draining", "draining"], "a browser came back by itself"
        assert by_token["hellos"] == 5
        assert by_ticket["ends"].count("token_expired") == 4, "a used ticket is told as one that ran out"
