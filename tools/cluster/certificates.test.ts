import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import tls from 'node:tls'
import { expect, test } from '@jest/globals'
import { createAuthority, integer } from './certificates.ts'

test.each([
  ['00', '020100'],
  ['7f', '02017f'],
  ['80', '02020080'],
  ['0100', '02020100'],
  ['007f', '02017f'],
  ['0080', '02020080'],
  ['000000', '020100'],
])('a number is written in its shortest form, and never as a negative one: %s', (bytes, written) => {
  expect(integer(Buffer.from(bytes, 'hex')).toString('hex')).toBe(written)
})

test('an issued certificate names its subject and is signed by the authority', () => {
  const authority = createAuthority('test-ca')
  const root = new X509Certificate(authority.certificate)
  const issued = authority.issue({ commonName: 'api', organization: 'system:masters' }, ['localhost', '127.0.0.1'])
  const certificate = new X509Certificate(issued.certificate)
  expect(root.ca).toBe(true)
  expect(root.verify(root.publicKey)).toBe(true)
  expect(certificate.ca).toBe(false)
  expect(certificate.verify(root.publicKey)).toBe(true)
  expect(certificate.checkIssued(root)).toBe(true)
  expect(certificate.subject).toBe('O=system:masters\nCN=api')
  expect(certificate.subjectAltName).toBe('DNS:localhost, IP Address:127.0.0.1')
  expect(certificate.validFromDate.getTime()).toBeLessThan(Date.now())
})

test('a client that trusts the authority speaks TLS with a server that has the certificate, and no other client does', async () => {
  const authority = createAuthority('test-ca')
  const { key, certificate } = authority.issue({ commonName: 'api' }, ['127.0.0.1'])
  const server = tls.createServer(
    { key, cert: certificate },
    (socket) => void socket.on('error', () => {}).end('hello'),
  )
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const read = async (ca: string): Promise<string> => {
    const socket = tls.connect({ port, host: '127.0.0.1', ca })
    let text = ''
    for await (const chunk of socket) text += String(chunk)
    return text
  }
  try {
    expect(await read(authority.certificate)).toBe('hello')
    await expect(read(createAuthority('test-ca').certificate)).rejects.toThrow()
  } finally {
    server.close()
  }
})
