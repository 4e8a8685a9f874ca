// Asking the gateway. Tokens live in the memory of this module and nowhere else: a page that is reloaded signs in anew.

const SLACK = 30_000 // milliseconds before its end that an access token is renewed

let tokens = null // {access, refresh, until}
let renewing = null
let onEnd = () => {}

/** What the gateway refused, or that it did not answer (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || 'The gateway refused.')
    this.status = status
    this.code = body.code ?? 'unknown'
    this.fields = body.errors ?? []
  }
}

/** `end` is called when the session is over without our doing. */
export function onSessionEnd(end) {
  onEnd = end
}

/** Who signed in; throws a Problem, also for a user who is no administrator. */
export async function signIn(username, password) {
  const given = await ask('POST', '/auth/login', { username, password, device: 'Console' })
  keep(given)
  if (!given.scope.split(' ').includes('admin')) {
    await signOut()
    throw new Problem(403, { code: 'no_admin', detail: `${username} is signed in, but is no administrator. The console is for administrators.` })
  }
  return call('GET', '/auth/me')
}

/** The session ends here and there. */
export async function signOut() {
  const last = tokens
  tokens = null
  if (last) await ask('POST', '/auth/logout', undefined, last.access).catch(() => {})
}

// A tab that is closed or reloaded has lost its tokens: its session would lie about for weeks.
// One that the browser brings back as it was finds itself signed out.
addEventListener('pagehide', () => {
  if (!tokens) return
  fetch('/auth/logout', { method: 'POST', keepalive: true, headers: { Authorization: `Bearer ${tokens.access}` } }).catch(() => {})
  tokens = null
})
addEventListener('pageshow', (event) => event.persisted && onEnd())

/** The body of the answer, or undefined if it has none. Throws a Problem. */
export async function call(method, path, body) {
  return (await answerOf(method, path, body)).data
}

/** The text of an answer that is not JSON. */
export async function text(path) {
  return (await answerOf('GET', path)).data
}

async function answerOf(method, path, body) {
  if (!tokens) throw new Problem(401, { code: 'signed_out', detail: 'You are signed out.' })
  if (Date.now() > tokens.until - SLACK) await renew()
  try {
    return { data: await ask(method, path, body, tokens?.access) }
  } catch (problem) {
    if (problem.status !== 401 || !tokens) throw problem
    await renew()
    return { data: await ask(method, path, body, tokens?.access) }
  }
}

function renew() {
  renewing ??= (async () => {
    try {
      keep(await ask('POST', '/auth/refresh', { refresh_token: tokens.refresh }))
    } catch (problem) {
      if (problem.status === 401) {
        tokens = null
        onEnd()
      }
      throw problem
    } finally {
      renewing = null
    }
  })()
  return renewing
}

function keep(given) {
  tokens = { access: given.access_token, refresh: given.refresh_token, until: Date.now() + given.expires_in * 1000 }
}

async function ask(method, path, body, token) {
  const headers = {}
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  if (token) headers.Authorization = `Bearer ${token}`
  let answer
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: 'omit' })
  } catch {
    throw new Problem(0, { code: 'unreachable', detail: 'The gateway cannot be reached.' })
  }
  const json = /json/.test(answer.headers.get('Content-Type') ?? '')
  const said = await (json ? answer.json() : answer.text()).catch(() => '')
  if (!answer.ok) throw new Problem(answer.status, json ? said : { detail: `The answer was ${answer.status}.` })
  return said === '' ? undefined : said
}

/** `path` with the parameters that are set. */
export function withQuery(path, parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== '')
  return set.length ? `${path}?${new URLSearchParams(set)}` : path
}
