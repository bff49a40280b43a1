import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { isIPv4 } from 'node:net'

/**
 * X.509 certificates (RFC 5280) for the cluster, ECDSA P-256 with SHA-256. Node reads certificates but does not make them, and an openssl command is not on
 * every machine; the few structures that are needed are written here in DER (X.690).
 */
export type KeyPair = { certificate: string; key: string }

type Subject = { commonName: string; organization?: string }

const VALID_MS = 3650 * 86_400_000
/** Clocks of one machine agree, but a certificate may be used in the second in which it is made. */
const BACKDATE_MS = 60_000

const tlv = (tag: number, ...parts: Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts)
  if (content.length < 0x80) return Buffer.concat([Buffer.from([tag, content.length]), content])
  const hex = content.length.toString(16)
  const size = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  return Buffer.concat([Buffer.from([tag, 0x80 | size.length]), size, content])
}

const sequence = (...parts: Uint8Array[]): Buffer => tlv(0x30, ...parts)
const set = (...parts: Uint8Array[]): Buffer => tlv(0x31, ...parts)
const boolean = (value: boolean): Buffer => tlv(0x01, Buffer.from([value ? 0xff : 0]))
const octets = (content: Uint8Array): Buffer => tlv(0x04, content)
const utf8 = (text: string): Buffer => tlv(0x0c, Buffer.from(text))
const bits = (content: Uint8Array, unused = 0): Buffer => tlv(0x03, Buffer.from([unused]), content)
/**
 * A number that is not negative, big-endian, in its shortest form (X.690 8.3): the first nine bits are not all 0, and the first is, because that is the sign. Go
 * refuses a certificate with any other.
 */
export const integer = (content: Uint8Array): Buffer => {
  const first = content.findIndex((byte) => byte !== 0)
  const shortest = first === -1 ? Buffer.from([0]) : content.subarray(first)
  return tlv(0x02, (shortest[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), shortest]) : shortest)
}
const generalizedTime = (at: Date): Buffer =>
  tlv(0x18, Buffer.from(`${at.toISOString().replaceAll(/[-:T]/g, '').slice(0, 14)}Z`))

/** Base 128 after the first two arcs, which share one byte. */
const oid = (dotted: string): Buffer => {
  const [first = 0, second = 0, ...arcs] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const arc of arcs) {
    const digits = [arc & 0x7f]
    for (let rest = arc >>> 7; rest > 0; rest >>>= 7) digits.unshift((rest & 0x7f) | 0x80)
    bytes.push(...digits)
  }
  return tlv(0x06, Buffer.from(bytes))
}

const ECDSA_WITH_SHA256 = sequence(oid('1.2.840.10045.4.3.2'))

const attribute = (type: string, text: string): Buffer => set(sequence(oid(type), utf8(text)))
const nameOf = ({ commonName, organization }: Subject): Buffer =>
  sequence(
    ...(organization === undefined ? [] : [attribute('2.5.4.10', organization)]),
    attribute('2.5.4.3', commonName),
  )

const extension = (id: string, critical: boolean, value: Uint8Array): Buffer =>
  sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value))

const DIGITAL_SIGNATURE = extension('2.5.29.15', true, bits(Buffer.from([0x80]), 7))
const CERTIFICATE_SIGN = extension('2.5.29.15', true, bits(Buffer.from([0x04]), 2))
const IS_AUTHORITY = extension('2.5.29.19', true, sequence(boolean(true)))
const FOR_SERVERS_AND_CLIENTS = extension(
  '2.5.29.37',
  false,
  sequence(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2')),
)

const alternativeNames = (names: string[]): Buffer =>
  extension(
    '2.5.29.17',
    false,
    sequence(
      ...names.map((name) =>
        isIPv4(name) ? tlv(0x87, Buffer.from(name.split('.').map(Number))) : tlv(0x82, Buffer.from(name)),
      ),
    ),
  )

const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replaceAll(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`

type Request = { subject: Subject; issuer: Subject; publicKey: KeyObject; signWith: KeyObject; extensions: Buffer[] }

const issue = ({ subject, issuer, publicKey, signWith, extensions }: Request): string => {
  const now = Date.now()
  const toBeSigned = sequence(
    tlv(0xa0, integer(Buffer.from([2]))),
    integer(randomBytes(16)),
    ECDSA_WITH_SHA256,
    nameOf(issuer),
    sequence(generalizedTime(new Date(now - BACKDATE_MS)), generalizedTime(new Date(now + VALID_MS))),
    nameOf(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    tlv(0xa3, sequence(...extensions)),
  )
  return pem(sequence(toBeSigned, ECDSA_WITH_SHA256, bits(sign('sha256', toBeSigned, signWith))))
}

const newKey = (): string =>
  generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  }).privateKey

/** A key without certificate, and its public half: for the signatures of service account tokens. */
export const createSigningKey = (): { key: string; publicKey: string } => {
  const key = newKey()
  return { key, publicKey: createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString() }
}

export type Authority = KeyPair & {
  /** A certificate for both ends of TLS. @param names host names and IPv4 addresses it is valid for */
  issue(subject: Subject, names?: string[]): KeyPair
}

export const createAuthority = (commonName: string): Authority => {
  const key = newKey()
  const issuer = { commonName }
  const signWith = createPrivateKey(key)
  const certificate = issue({
    subject: issuer,
    issuer,
    publicKey: createPublicKey(key),
    signWith,
    extensions: [IS_AUTHORITY, CERTIFICATE_SIGN],
  })
  return {
    certificate,
    key,
    issue: (subject, names = []) => {
      const own = newKey()
      const extensions = [DIGITAL_SIGNATURE, FOR_SERVERS_AND_CLIENTS]
      if (names.length > 0) extensions.push(alternativeNames(names))
      return {
        key: own,
        certificate: issue({ subject, issuer, publicKey: createPublicKey(own), signWith, extensions }),
      }
    },
  }
}
