// Loading and keeping fresh what a page shows. The last answer stays on the page while the next is on its way.
import { call, withQuery } from './api.js'
import { useEffect, useRef, useState } from './lib.js'

/** Run `work` now and every so many milliseconds, while the page is looked at. Anew when `key` changes. */
export function useEvery(milliseconds, work, key) {
  const current = useRef(work)
  current.current = work
  useEffect(() => {
    let timer
    let over = false
    const turn = async () => {
      if (document.visibilityState === 'visible') await current.current(() => over)
      if (!over && milliseconds) timer = setTimeout(turn, milliseconds)
    }
    turn()
    return () => {
      over = true
      clearTimeout(timer)
    }
  }, [key, milliseconds])
}

/** The pages of a list, one after the other: {items, problem, loading, more, reload}. */
export function useList(path, parameters = {}, { skip = false } = {}) {
  const [state, setState] = useState({ items: null, problem: null, loading: false, next: null })
  const asked = useRef(0)
  const key = skip ? '' : withQuery(path, parameters)
  const load = async (cursor) => {
    const turn = ++asked.current
    setState((before) => ({ ...before, loading: true }))
    try {
      const page = await call('GET', withQuery(path, { ...parameters, limit: 50, cursor }))
      if (turn !== asked.current) return
      setState((before) => ({
        items: cursor ? [...before.items, ...page.items] : page.items,
        problem: null,
        loading: false,
        next: page.next,
        missing: page.missing,
      }))
    } catch (problem) {
      if (turn === asked.current) setState((before) => ({ ...before, problem, loading: false }))
    }
  }
  useEffect(() => {
    if (!skip) load()
    return () => void asked.current++
  }, [key])
  return { ...state, reload: () => load(), more: state.next ? () => load(state.next) : null }
}

/** One answer, or none yet: {data, problem, reload}. */
export function useOne(path, { every = 0 } = {}) {
  const [state, setState] = useState({ data: null, problem: null })
  const load = async (over = () => false) => {
    try {
      const data = await call('GET', path)
      if (!over()) setState({ data, problem: null })
    } catch (problem) {
      if (!over()) setState((before) => ({ ...before, problem }))
    }
  }
  useEvery(every, load, path)
  return { ...state, reload: () => load() }
}
