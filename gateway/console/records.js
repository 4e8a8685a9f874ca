// What was revoked, who did what, and who is online. Changes nothing.
import { call, withQuery } from './api.js'
import { html, useState } from './lib.js'
import { useEvery, useList } from './loading.js'
import { Address, Field, Heading, Id, Table, When } from './parts.js'
import { toUser } from './users.js'

export function Revocations() {
  const list = useList('/admin/revocations')
  const target = (one) => {
    if (one.session) return html`session <${Id}>${one.session}<//>`
    if (one.jti) return html`token <${Id}>${one.jti}<//>`
    if (one.client_id) return html`client <${Id}>${one.client_id}<//>`
    return html`sessions of ${toUser(one.user_id)} up to <${When} at=${one.issued_before ?? one.created_at} />`
  }
  const columns = [
    { title: 'At', of: (one) => html`<${When} at=${one.created_at} />` },
    { title: 'What', of: target },
    { title: 'Reason', of: (one) => one.reason ?? '–' },
    { title: 'By', of: (one) => html`<${Id}>${one.actor}<//>` },
    { title: 'In force until', of: (one) => html`<${When} at=${one.until} />` },
  ]
  return html`<${Heading} title="Revocations"><button type="button" onClick=${list.reload}>Load again</button><//>
    <p class="note">Those still in force. Sessions, users and clients are revoked where they are listed.</p>
    <${Table} caption="Revocations in force" columns=${columns} list=${list} keyOf=${(one) => one.id} empty="No revocation is in force." />`
}

export function Audit() {
  const list = useList('/admin/audit')
  const columns = [
    { title: 'At', of: (one) => html`<${When} at=${one.at} />` },
    { title: 'Who', of: (one) => html`<${Id}>${one.actor}<//>` },
    { title: 'Did', of: (one) => html`<span class="whole">${one.action}</span>` },
    { title: 'To', of: (one) => html`<${Id}>${one.target}<//>` },
    { title: 'More', of: (one) => (Object.keys(one.detail).length ? html`<code>${JSON.stringify(one.detail)}</code>` : '–') },
    { title: 'From', of: (one) => html`<${Address} of=${one.address} />` },
  ]
  return html`<${Heading} title="Audit"><button type="button" onClick=${list.reload}>Load again</button><//>
    <p class="note">Newest first. Nothing is ever changed or taken out.</p>
    <${Table} caption="Audit" columns=${columns} list=${list} keyOf=${(one) => one.number} empty="Nothing has been done yet." />`
}

const EVERY = 2000 // milliseconds

/** Of the users that are named, who is online; again and again while one looks. */
export function Presence({ query }) {
  const ids = [...new Set((query.users ?? '').split(/[\s,]+/).filter(Boolean))].slice(0, 100)
  const [state, setState] = useState({ items: null, problem: null })
  const load = async (over = () => false) => {
    if (!ids.length) return
    try {
      const { items } = await call('GET', `/admin/presence?${new URLSearchParams(ids.map((id) => ['user_id', id]))}`)
      if (!over()) setState({ items, problem: null })
    } catch (problem) {
      if (!over()) setState((before) => ({ ...before, problem }))
    }
  }
  useEvery(EVERY, load, ids.join(' '))
  const columns = [
    { title: 'User', of: (one) => toUser(one.user_id) },
    { title: 'State', of: (one) => html`<span class=${`tag ${one.online ? 'good' : ''}`}>${one.online === null ? 'not known' : one.online ? 'online' : 'offline'}</span>` },
    { title: 'Since', of: (one) => html`<${When} at=${one.since} />` },
    { title: 'Devices', of: (one) => one.devices },
    { title: 'Connections', of: (one) => one.connections },
    { title: 'Nodes', of: (one) => one.nodes.join(', ') || '–' },
  ]
  const go = (event) => {
    event.preventDefault()
    location.hash = withQuery('#/presence', { users: event.currentTarget.elements.users.value.trim() })
  }
  const list = { ...state, items: ids.length ? state.items : [], loading: false, reload: () => load() }
  return html`<${Heading} title="Presence" />
    <form class="search" role="search" onSubmit=${go}>
      <${Field} label="Users" name="users" value=${ids.join(' ')} hint="Up to 100 ids, with spaces or commas between them." />
      <button type="submit">Show</button>
    </form>
    <${Table} caption="Presence" columns=${columns} list=${list} keyOf=${(one) => one.user_id} empty="Name the users whose presence you want to see." />`
}
