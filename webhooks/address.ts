import { lookup } from 'node:dns'
import type { LookupAddress } from 'node:dns'
import { isIP } from 'node:net'
import type { LookupFunction } from 'node:net'
import { isPublicAddress } from '../domain/public-address.ts'

/** A receiver is at an address that nothing may be sent to. */
export class RefusedAddress extends Error {
  override name = 'RefusedAddress'
}

const REMEDY = 'only public addresses are allowed (WEBHOOK_ALLOW_PRIVATE_TARGETS)'

export const isRefused = (error: unknown): error is RefusedAddress =>
  Error.isError(error) && error.name === 'RefusedAddress'

/** @throws RefusedAddress when the host of a URL is an address itself, and not public: no name is looked up for it */
export const checkHost = (hostname: string): void => {
  const host = hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0 && !isPublicAddress(host)) throw new RefusedAddress(`${host} is not public; ${REMEDY}`)
}

/** The system's own resolver, as `node:dns` has it. */
export type Resolve = (
  hostname: string,
  options: { all: true; family?: number },
  done: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void

/**
 * How a connection finds its address. What was checked is what is connected to, so a name cannot be public when it is looked at and private when it is used; one
 * address that is not public is enough to refuse a name.
 */
export const publicLookup =
  (resolve: Resolve = lookup): LookupFunction =>
  (hostname, { all, family }, done) => {
    const numeric = typeof family === 'number' ? { family } : {}
    resolve(hostname, { all: true, ...numeric }, (error, addresses) => {
      const refused = addresses?.find(({ address }) => !isPublicAddress(address))
      const [first] = addresses ?? []
      const failure =
        error ??
        (refused === undefined ? null : new RefusedAddress(`${hostname} is ${refused.address}, not public; ${REMEDY}`))
      if (failure !== null || first === undefined) done(failure ?? new Error(`${hostname} has no address`), [])
      else if (all === true) done(null, addresses)
      else done(null, first.address, first.family)
    })
  }
