// Who is signed in, and what is open: ending a session, and revoking it with a reason.
import { call } from './api.js'
import { html, useState } from './lib.js'
import { useList } from './loading.js'
import { Address, announce, Confirm, Field, Heading, Id, Table, When } from './parts.js'
import { toUser } from './users.js'

export function Sessions({ query }) {
  return html`<${Heading} title="Sessions" /><${OfUser} page="sessions" id=${query.user} /><${SessionTable} key=${query.user} userId=${query.user} all />`
}

export function Connections({ query }) {
  return html`<${Heading} title="Connections" /><${OfUser} page="connections" id=${query.user} /><${ConnectionTable} key=${query.user} userId=${query.user} all />`
}

function OfUser({ page, id }) {
  const go = (event) => {
    event.preventDefault()
    const wanted = event.currentTarget.elements.user.value.trim()
    location.hash = wanted ? `#/${page}?user=${encodeURIComponent(wanted)}` : `#/${page}`
  }
  return html`<form class="search" role="search" onSubmit=${go}>
    <${Field} label="Of the user" name="user" type="search" value=${id ?? ''} maxlength="64" hint="An id, whole. Empty: of everybody." />
    <button type="submit">Show</button>
  </form>`
}

export function SessionTable({ userId, all = false }) {
  const list = useList('/admin/sessions', { user_id: userId })
  const [ending, setEnding] = useState(null)
  const columns = [
    ...(all ? [{ title: 'User', of: (one) => toUser(one.user_id) }] : []),
    { title: 'Device', of: (one) => html`${one.device ?? '–'} ${one.current && html`<span class="tag">this one</span>`}` },
    { title: 'Address', of: (one) => html`<${Address} of=${one.address} />` },
    { title: 'Signed in', of: (one) => html`<${When} at=${one.created_at} />` },
    { title: 'Refreshed', of: (one) => html`<${When} at=${one.refreshed_at} />` },
  ]
  return html`<${Table} caption="Sessions" columns=${columns} list=${list} keyOf=${(one) => one.id} empty="Nobody is signed in here."
      actions=${(one) => html`<button type="button" onClick=${() => setEnding({ one, how: 'end' })}>End</button>
        <button type="button" onClick=${() => setEnding({ one, how: 'revoke' })}>Revoke…</button>`} />
    ${ending && html`<${End} id=${ending.one.id} user=${ending.one.user_id} how=${ending.how} current=${ending.one.current} close=${() => setEnding(null)} done=${list.reload} />`}`
}

export function ConnectionTable({ userId, all = false }) {
  const list = useList('/admin/connections', { user_id: userId })
  const [ending, setEnding] = useState(null)
  const columns = [
    ...(all ? [{ title: 'User', of: (one) => toUser(one.user_id) }] : []),
    { title: 'Connection', of: (one) => html`<${Id}>${one.id}<//>` },
    { title: 'By', of: (one) => html`<span class="whole">${one.transport}</span> ${one.behind && html`<span class="tag warn">behind</span>`}` },
    { title: 'Address', of: (one) => html`<${Address} of=${one.address} />` },
    { title: 'Open since', of: (one) => html`<${When} at=${one.opened_at} />` },
    { title: 'Token until', of: (one) => html`<${When} at=${one.token_expires_at} />` },
  ]
  return html`${list.missing?.length > 0 && html`<p class="note">These nodes did not answer, and what they have open is not in here: ${list.missing.join(', ')}.</p>`}
    <${Table} caption="Open connections" columns=${columns} list=${list} keyOf=${(one) => one.id} empty="Nothing is open here."
      actions=${(one) => one.session && html`<button type="button" onClick=${() => setEnding({ one, how: 'end' })}>End</button>
        <button type="button" onClick=${() => setEnding({ one, how: 'revoke' })}>Revoke…</button>`} />
    ${ending && html`<${End} id=${ending.one.session} user=${ending.one.user_id} how=${ending.how} close=${() => setEnding(null)} done=${list.reload} />`}`
}

function End({ id, user, how, current, close, done }) {
  const revoking = how === 'revoke'
  const run = async ({ reason }) => {
    if (revoking) await call('POST', '/admin/revocations', { session: id, ...(reason && { reason }) })
    else await call('DELETE', `/auth/sessions/${encodeURIComponent(id)}`)
    announce(revoking ? 'The session was revoked.' : 'The session was ended.')
    done()
  }
  return html`<${Confirm} title=${revoking ? 'Revoke the session' : 'End the session'} action=${revoking ? 'Revoke' : 'End'} close=${close} run=${run}
    text=${`The device of ${user} is signed out, and all its connections close.${current ? ' This is your own session: you will be signed out.' : ''}`}
    fields=${revoking && html`<${Field} label="Reason" name="reason" maxlength="500" hint="Stands in the list of revocations and in the audit." />`} />`
}
