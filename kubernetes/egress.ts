import { covers, looksLikeAddress, parseRange, widest } from '../domain/cidr.ts'
import type { Range } from '../domain/cidr.ts'
import { SandboxFailedError } from '../sandbox/driver.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import type { IpBlock } from './objects.ts'

export type EgressSettings = {
  /** Ranges that no rule of an agent opens. */
  blocked: string[]
  /** Ranges that every sandbox reaches. */
  allowed: string[]
  /** Of the pods that are asked for names. */
  dnsPodLabels: Record<string, string>
}

type Rules = Pick<SandboxSpec, 'allowOut' | 'denyOut'>

const everything = ['0.0.0.0/0', '::/0']

/** @throws SandboxFailedError for what is neither: nobody would be held to it */
const rangeOf = (rule: string): Range | null => {
  const range = parseRange(rule)
  if (range === null && looksLikeAddress(rule)) {
    const message = `Its agent has an egress rule that is neither a host nor an address: ${rule}`
    throw new SandboxFailedError({ code: 'setup_failed', message, evidence: { exists: false } })
  }
  return range
}

const rangesOf = (texts: string[]): Range[] => texts.map(rangeOf).filter((range) => range !== null)

/** `except` has to lie within its block, and not to be all of it. */
const without = (wanted: Range[], excluded: Range[]): IpBlock[] =>
  wanted
    .filter((range) => !excluded.some((one) => covers(one, range)))
    .map((range) => {
      const except = excluded.filter((one) => covers(range, one)).map(({ text }) => text)
      return { cidr: range.text, ...(except.length === 0 ? {} : { except }) }
    })

/**
 * What a sandbox with such rules reaches beside DNS, in the words of a NetworkPolicy, which knows addresses only. An allow list is all that is reached, so a deny list
 * beside it says nothing. With a name in it everything has to stay open, because nobody here knows the name's addresses.
 * @returns null: a policy of its own would add nothing; it reaches what every sandbox does
 * @throws SandboxFailedError for an address that is none
 */
export const blocksOf = ({ allowOut, denyOut }: Rules, { blocked, allowed }: EgressSettings): IpBlock[] | null => {
  const allow = rangesOf(allowOut)
  const deny = rangesOf(denyOut)
  if (allow.length < allowOut.length) return null
  if (allowOut.length === 0 && deny.length === 0) return null
  const always = widest(rangesOf(allowed))
  const wanted = allowOut.length === 0 ? rangesOf(everything) : allow
  const excluded = widest([...rangesOf(blocked), ...(allowOut.length === 0 ? deny : [])])
  const rest = widest(wanted).filter((range) => !always.some((one) => covers(one, range)))
  return [...without(always, []), ...without(rest, excluded)]
}
