// How the gateway is: live plots out of its own metrics, the nodes, and whether it can serve.
import { call, text } from './api.js'
import { html, useState } from './lib.js'
import { useEvery, useOne } from './loading.js'
import { Failure, Heading, Id, When } from './parts.js'
import { Plot } from './plot.js'
import { parse, quantile, rate } from './prometheus.js'

const EVERY = 2000 // milliseconds between two readings
const KEPT = 300 // readings: ten minutes
const SPAN = 15 // seconds that the quantiles look back

const ERRORS = { 'Refused sockets': 'gateway_upgrades_refused_total', 'Over a rate': 'gateway_rate_limited_total', 'Answered 5xx': 'gateway_http_failed_total' }
const NAMES = ['connections', 'users', 'pushes', 'frames', 'p50', 'p99', 'lag50', 'lag99', ...Object.keys(ERRORS)]

// Outlives the page: who comes back to it finds what was seen. By node, for behind a balancer any may answer.
const seen = new Map()

function take(reading, now) {
  const name = reading.nodes.join(', ') || 'this node'
  const one = seen.get(name) ?? { readings: [], times: [], series: Object.fromEntries(NAMES.map((key) => [key, []])) }
  seen.set(name, one)
  const { readings, times, series } = one
  const last = readings.at(-1)
  const since = readings.find((kept) => kept.now >= now - SPAN)
  const { sums, buckets } = reading
  const per = (counter) => (last ? rate(last.sums[counter] ?? 0, sums[counter] ?? 0, now - last.now) : null)
  const both = (first, second) => (first === null || second === null ? null : first + second)
  const anew = since && since.sums.gateway_event_loop_lag_seconds_count > sums.gateway_event_loop_lag_seconds_count
  const share = (q, histogram) => (since && !anew ? quantile(q, since.buckets[histogram], buckets[histogram]) : null)
  const values = {
    connections: sums.gateway_connections,
    users: sums.gateway_users_online,
    pushes: both(per('gateway_notifications_stored_total'), per('gateway_notifications_passed_total')),
    frames: per('gateway_frames_written_total'),
    p50: share(0.5, 'gateway_delivery_seconds'),
    p99: share(0.99, 'gateway_delivery_seconds'),
    lag50: share(0.5, 'gateway_event_loop_lag_seconds'),
    lag99: share(0.99, 'gateway_event_loop_lag_seconds'),
  }
  for (const [title, counter] of Object.entries(ERRORS)) values[title] = per(counter)
  one.times = [...times, now].slice(-KEPT)
  for (const key of NAMES) series[key] = [...series[key], values[key] ?? null].slice(-KEPT)
  readings.push({ now, sums, buckets })
  while (readings[0].now < now - SPAN) readings.shift()
  return name
}

const count = (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)}k` : String(Math.round(value * 100) / 100))
const time = (value) => (value === 0 ? '0' : value >= 1 ? `${value.toFixed(1)} s` : `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`)

export function Overview() {
  const [shown, setShown] = useState(() => [...seen.keys()].at(-1) ?? null)
  const [, setTurn] = useState(0)
  const [problem, setProblem] = useState(null)
  useEvery(EVERY, async (over) => {
    try {
      const name = take(parse(await text('/metrics')), Date.now() / 1000)
      if (over()) return
      setShown((before) => before ?? name)
      setProblem(null)
      setTurn((turn) => turn + 1)
    } catch (found) {
      if (!over()) setProblem(found)
    }
  })
  const { times, series } = seen.get(shown) ?? { times: [], series: Object.fromEntries(NAMES.map((key) => [key, []])) }
  const lines = (...wanted) => wanted.map(([label, key], at) => ({ label, values: series[key], ink: at + 1 }))
  return html`<${Heading} title="Overview">
      ${seen.size > 1 &&
      html`<label class="inline">Numbers of <select value=${shown} onChange=${(event) => setShown(event.target.value)}>
        ${[...seen.keys()].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select></label>`}
    <//>
    <${Health} />
    <${Failure} problem=${problem} />
    <div class="plots" key=${shown}>
      <${Plot} title="Connections" hint="Open sockets and event streams" times=${times} show=${count} series=${lines(['Connections', 'connections'], ['Users', 'users'])} />
      <${Plot} title="Pushes per second" hint="Notifications taken, and frames written to sockets" times=${times} show=${count} series=${lines(['Pushes', 'pushes'], ['Frames', 'frames'])} />
      <${Plot} title="Delivery latency" hint="From a push's arrival to its sockets, last ${SPAN} seconds" times=${times} show=${time} series=${lines(['p50', 'p50'], ['p99', 'p99'])} />
      <${Plot} title="Event-loop lag" hint="How late the loop comes to a timer, last ${SPAN} seconds" times=${times} show=${time} series=${lines(['p50', 'lag50'], ['p99', 'lag99'])} />
      <${Plot} title="Errors per second" hint="What was refused, and what failed" times=${times} show=${count} series=${lines(...Object.keys(ERRORS).map((title) => [title, title]))} />
      <${Nodes} />
    </div>`
}

function Health() {
  const [state, setState] = useState({ word: 'Asking…', kind: 'dim' })
  useEvery(EVERY, async (over) => {
    let found
    try {
      const { status, reasons } = await call('GET', '/readyz')
      found = status === 'ready' ? { word: 'It can serve.', kind: 'good' } : { word: `It serves, but: ${reasons.join(', ')}.`, kind: 'warn' }
    } catch (problem) {
      found = { word: problem.message, kind: 'bad' }
    }
    if (!over()) setState(found)
  })
  return html`<p class=${`health ${state.kind}`} role="status"><span class="dot" aria-hidden="true"></span>${state.word}</p>`
}

function Nodes() {
  const { data, problem } = useOne('/admin/presence/summary', { every: 2 * EVERY })
  return html`<section class="plot">
    <h2>Nodes</h2>
    <p class="hint">${data && !data.complete ? 'The other nodes cannot be asked now: only this one is here.' : 'All that live'}</p>
    <${Failure} problem=${problem} />
    ${data &&
    html`<dl class="nodes">
      ${data.nodes.map(
        (node) => html`<div key=${node.node}><dt><${Id}>${node.node}<//></dt>
          <dd>Connections: ${node.connections}, users: ${node.users}, since <${When} at=${node.since} /></dd></div>`,
      )}
    </dl>`}
  </section>`
}
