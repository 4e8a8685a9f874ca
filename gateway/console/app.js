// The frame of the console: who is signed in, which page is shown. The pages are modules of their own.
import { onSessionEnd, signIn, signOut } from './api.js'
import { Clients } from './clients.js'
import { html, render, useEffect, useState } from './lib.js'
import { Overview } from './overview.js'
import { Announcements, Field, Form } from './parts.js'
import { Audit, Presence, Revocations } from './records.js'
import { Send } from './send.js'
import { Connections, Sessions } from './sessions.js'
import { Users } from './users.js'

const PAGES = [
  ['overview', 'Overview', Overview],
  ['users', 'Users', Users],
  ['sessions', 'Sessions', Sessions],
  ['connections', 'Connections', Connections],
  ['presence', 'Presence', Presence],
  ['send', 'Send', Send],
  ['clients', 'Clients', Clients],
  ['revocations', 'Revocations', Revocations],
  ['audit', 'Audit', Audit],
]

function decoded(part) {
  try {
    return decodeURIComponent(part)
  } catch {
    return part // an address that somebody has typed
  }
}

function whereTo() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?')
  const [name, ...rest] = path.split('/').map(decoded)
  return { name: name || 'overview', id: rest[0], query: Object.fromEntries(new URLSearchParams(query)) }
}

function App() {
  const [me, setMe] = useState(null)
  const [ended, setEnded] = useState(false)
  useEffect(() => {
    onSessionEnd(() => {
      setEnded(true)
      setMe(null)
    })
  }, [])
  if (!me) return html`<${SignIn} ended=${ended} done=${(found) => { setEnded(false); setMe(found) }} />`
  return html`<${Frame} me=${me} leave=${async () => { await signOut(); setMe(null) }} />`
}

function SignIn({ ended, done }) {
  useEffect(() => {
    document.title = 'Sign in – Notification gateway'
    document.querySelector('#field-username').focus()
  }, [])
  return html`<main class="door">
    <h1>Notification gateway</h1>
    <p>The console for administrators.</p>
    ${ended && html`<p class="failure" role="alert">Your session has ended. Sign in again.</p>`}
    <${Form} action="Sign in" submit=${async ({ username, password }) => done(await signIn(username, password))}>
      <${Field} label="User name" name="username" autocomplete="username" autocapitalize="none" spellcheck=${false} required />
      <${Field} label="Password" name="password" type="password" autocomplete="current-password" required />
    <//>
  </main>`
}

function Frame({ me, leave }) {
  const [where, setWhere] = useState(whereTo)
  const [open, setOpen] = useState(false)
  useEffect(() => {
    const moved = () => {
      setWhere(whereTo())
      setOpen(false)
    }
    addEventListener('hashchange', moved)
    return () => removeEventListener('hashchange', moved)
  }, [])
  const page = PAGES.find(([name]) => name === where.name)
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector('main h1').focus() }}>Skip to the page</a>
    <div class="frame">
      <nav aria-label="Console">
        <div class="brand"><span>Notification gateway</span>
          <button type="button" class="menu" aria-expanded=${open ? 'true' : 'false'} aria-controls="pages" onClick=${() => setOpen(!open)}>Menu</button></div>
        <div id="pages" class=${open ? 'open' : ''}>
          <ul>${PAGES.map(([name, title]) => html`<li key=${name}><a href=${`#/${name}`} aria-current=${name === where.name ? 'page' : null}>${title}</a></li>`)}</ul>
          <div class="me"><span>Signed in as <strong>${me.username}</strong></span><button type="button" onClick=${leave}>Sign out</button></div>
        </div>
      </nav>
      <main id="main">
        ${page ? html`<${page[2]} key=${`${where.name}/${where.id ?? ''}`} id=${where.id} query=${where.query} me=${me} />` : html`<h1 tabindex="-1">There is no such page</h1><p><a href="#/overview">To the overview</a></p>`}
      </main>
    </div>
    <${Announcements} />`
}

render(html`<${App} />`, document.querySelector('#app'))
